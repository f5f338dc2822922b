//! The device.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::control::{self, Request};
use super::filter::Filter;
use super::pair::Pair;
use super::report::{DataPath, NicReport};
use super::spec::{
    ANNOUNCE, CLASS, CONTROL_QUEUE_SIZE, F_ANNOUNCE, F_CONTROL, F_CONTROL_MAC, F_CONTROL_RX, F_CONTROL_RX_EXTRA,
    F_CSUM, F_GUEST_CSUM, F_GUEST_ECN, F_GUEST_TSO4, F_GUEST_TSO6, F_HOST_ECN, F_HOST_TSO4, F_HOST_TSO6, F_MAC,
    F_MERGEABLE, F_MTU, F_MULTI_QUEUE, F_STATUS, LINK_UP, MOST_BYTES, QUEUE_SIZE, TUN_F_CSUM, TUN_F_TSO_ECN,
    TUN_F_TSO4, TUN_F_TSO6,
};
use crate::memory::GuestMemory;
use crate::sys::tap;
use crate::virtio::spec::TYPE_NETWORK;
use crate::virtio::{Change, Device, DeviceState, Interrupts, Malformed, Rings, VirtQueue};

/// What a device is made with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NetSettings {
    /// The guest's address.
    pub(crate) mac: [u8; 6],
    /// What is announced as the link's MTU.
    pub(crate) mtu: Option<u16>,
    /// Whether the link begins without carrier.
    pub(crate) link_down: bool,
}

/// A network device.
pub(crate) struct Net {
    settings: NetSettings,
    pairs: Vec<Pair>,
    /// What the driver has taken.
    features: u64,
    /// Pairs that the driver uses.
    used: usize,
    /// Whether the driver is asked to announce the guest.
    announce: bool,
    filter: Filter,
    sent: Vec<u8>,
    report: Arc<NicReport>,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Net {
    /// A device on non-blocking queues of a tap whose frames begin with a header of 12 bytes, each with a descriptor of
    /// vhost-net or none.
    pub(crate) fn new(settings: NetSettings, taps: Vec<(OwnedFd, Option<OwnedFd>)>, report: Arc<NicReport>) -> Self {
        let pairs = taps.into_iter().map(|(tap, vhost)| Pair::new(tap, vhost)).collect();
        let filter = Filter::new(settings.mac);
        Self { settings, pairs, features: 0, used: 1, announce: false, filter, sent: vec![0; MOST_BYTES], report }
    }

    /// §5.1.2: the control queue follows the pairs that the driver knows of.
    fn control_queue(&self) -> usize {
        if self.features & F_MULTI_QUEUE != 0 { 2 * self.pairs.len() } else { 2 }
    }

    fn set_offloads(&self) {
        let taken = [
            (F_GUEST_CSUM, TUN_F_CSUM),
            (F_GUEST_TSO4, TUN_F_TSO4),
            (F_GUEST_TSO6, TUN_F_TSO6),
            (F_GUEST_ECN, TUN_F_TSO_ECN),
        ];
        let taken = taken.iter().filter(|(feature, _)| self.features & feature != 0);
        let flags = taken.fold(0, |flags, (_, flag)| flags | flag);
        // All queues of a tap have the same.
        let Some(pair) = self.pairs.first() else { return };
        if let Err(error) = tap::set_offload(pair.tap(), flags) {
            tracing::warn!(%error, "the tap keeps its offloads: the guest may see frames that it did not ask for");
        }
    }

    /// Has the kernel send frames to the queues that the driver uses, and to no others.
    fn use_pairs(&mut self, count: usize) -> bool {
        if !(1..=self.pairs.len()).contains(&count) {
            return false;
        }
        self.used = count;
        if self.pairs.len() == 1 {
            return true;
        }
        self.pairs.iter().enumerate().all(|(at, pair)| match tap::set_queue(pair.tap(), at < count) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, at, "a queue of the tap cannot be switched");
                false
            }
        })
    }

    fn control(&mut self, queue: &mut VirtQueue, memory: &GuestMemory) -> Result<bool, String> {
        control::answer(&mut queue.queue, memory, |request| {
            match request {
                Request::Pairs(count) => return self.features & F_MULTI_QUEUE != 0 && self.use_pairs(count.into()),
                Request::Announced => self.announce = false,
                Request::Mode(mode, on) => self.filter.switch(mode, on),
                Request::Tables(unicast, multicast) => self.filter.set_tables(unicast, multicast),
                Request::Address(address) => self.filter.set_mac(address),
            }
            true
        })
        .map(|()| false)
    }
}

impl Device for Net {
    fn name(&self) -> &'static str {
        "net"
    }

    fn device_type(&self) -> u16 {
        TYPE_NETWORK
    }

    fn class(&self) -> u32 {
        CLASS
    }

    fn features(&self) -> u64 {
        let offloads = F_CSUM | F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6 | F_HOST_TSO4 | F_HOST_TSO6;
        let control = F_CONTROL | F_CONTROL_RX | F_CONTROL_RX_EXTRA | F_CONTROL_MAC | F_ANNOUNCE;
        let several = if self.pairs.len() > 1 { F_MULTI_QUEUE } else { 0 };
        let mtu = self.settings.mtu.map_or(0, |_| F_MTU);
        F_MAC | F_STATUS | F_MERGEABLE | F_GUEST_ECN | F_HOST_ECN | offloads | control | several | mtu
    }

    fn queue_sizes(&self) -> Vec<u16> {
        let mut sizes = vec![QUEUE_SIZE; 2 * self.pairs.len()];
        sizes.push(CONTROL_QUEUE_SIZE);
        sizes
    }

    /// §5.1.4: address, status, pairs of queues, MTU.
    fn configuration(&self) -> Vec<u8> {
        let up = if self.settings.link_down { 0 } else { LINK_UP };
        let status = up | if self.announce { ANNOUNCE } else { 0 };
        let mut bytes = self.filter.mac().to_vec();
        bytes.extend(status.to_le_bytes());
        bytes.extend(u16::try_from(self.pairs.len()).unwrap_or(1).to_le_bytes());
        bytes.extend(self.settings.mtu.unwrap_or_default().to_le_bytes());
        bytes
    }

    fn start(&mut self, features: u64, rings: &mut Rings<'_>) -> usize {
        self.features = features;
        self.set_offloads();
        let used = self.used;
        self.use_pairs(used);
        let known = if features & F_MULTI_QUEUE != 0 { self.pairs.len() } else { 1 };
        // Queues are served all here or all elsewhere: the event loop listens to one or the other. Without carrier no frame
        // passes, which vhost-net does not know.
        let mut all = self.pairs.iter_mut().take(known).enumerate();
        let up = !self.settings.link_down;
        if !(up && all.all(|(at, pair)| pair.hand_over(features, 2 * at, rings))) {
            self.stop(rings);
            self.report.set_path(DataPath::Own);
            return 0;
        }
        self.report.set_path(DataPath::VhostNet);
        2 * known
    }

    fn stop(&mut self, rings: &mut Rings<'_>) {
        let of_pairs = rings.queues.chunks_mut(2);
        self.pairs.iter_mut().zip(of_pairs).for_each(|(pair, queues)| pair.take_back(queues, rings.memory));
    }

    fn reset(&mut self) {
        self.pairs.iter_mut().for_each(Pair::reset);
        (self.used, self.announce, self.features) = (1, false, 0);
        self.filter = Filter::new(self.settings.mac);
        self.report.set_path(DataPath::Idle);
    }

    fn on_change(&mut self, change: Change) -> bool {
        let Change::Link { up } = change else { return false };
        let changed = self.settings.link_down == up;
        self.settings.link_down = !up;
        // A link that comes back may be another: neighbours are to learn where the guest is.
        self.announce |= changed && up && self.features & F_ANNOUNCE != 0;
        changed
    }

    /// A frame that waits for buffers is not kept: networks lose frames.
    fn save(&self) -> DeviceState {
        DeviceState::Net {
            pairs: u16::try_from(self.used).unwrap_or(1),
            announce: self.announce,
            link_down: self.settings.link_down,
            filter: Some(self.filter.state()),
        }
    }

    fn restore(&mut self, state: &DeviceState) {
        if let DeviceState::Net { pairs, announce, link_down, filter } = state {
            self.used = usize::from(*pairs).clamp(1, self.pairs.len().max(1));
            self.announce = *announce;
            self.settings.link_down = *link_down;
            // A snapshot of a release without filters keeps the one that passes all.
            if let Some(filter) = filter {
                self.filter = Filter::restored(filter.clone());
            }
        }
    }

    fn serve(
        &mut self,
        queue: usize,
        queues: &mut [VirtQueue],
        memory: &GuestMemory,
        interrupts: &mut Interrupts<'_>,
    ) -> Result<bool, Malformed> {
        let mergeable = self.features & F_MERGEABLE != 0;
        let is_control = queue == self.control_queue();
        let Some(used) = queues.get_mut(queue) else { return Ok(false) };
        let report = Arc::clone(&self.report);
        let more = match (self.pairs.get_mut(queue / 2), report.of(queue)) {
            _ if is_control => self.control(used, memory),
            // §5.1.4.2: no frame passes a link that is down.
            (Some(pair), Some(counters)) if queue.is_multiple_of(2) && self.settings.link_down => {
                pair.discard(counters);
                Ok(false)
            }
            (Some(pair), Some(counters)) if queue.is_multiple_of(2) => {
                pair.receive(used, memory, (mergeable, &self.filter), counters)
            }
            (Some(pair), Some(counters)) if !queue.is_multiple_of(2) => {
                pair.transmit(used, memory, &mut self.sent, counters)
            }
            _ => Ok(false),
        };
        let more = more.map_err(|reason| Malformed { device: self.name(), queue, reason })?;
        interrupts.used(used, memory);
        Ok(more)
    }
}
