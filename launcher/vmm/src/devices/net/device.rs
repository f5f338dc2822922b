//! The device.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};

use super::queue;
use super::spec::{
    CLASS, F_CSUM, F_GUEST_CSUM, F_GUEST_TSO4, F_GUEST_TSO6, F_HOST_TSO4, F_HOST_TSO6, F_MAC, F_MERGEABLE, F_MTU,
    F_STATUS, HEADER, LINK_UP, MOST_BYTES, MOST_FRAMES, QUEUE_SIZE, RECEIVE, TRANSMIT, TUN_F_CSUM, TUN_F_TSO4,
    TUN_F_TSO6,
};
use crate::memory::GuestMemory;
use crate::virtio::spec::TYPE_NETWORK;
use crate::virtio::{Device, Interrupts, Malformed, VirtQueue};

/// Sets what the tap may leave to the guest, in flags of TUNSETOFFLOAD.
pub(crate) type Offload = Box<dyn Fn(u32) -> std::io::Result<()> + Send>;

/// A network device.
pub(crate) struct Net {
    tap: File,
    offload: Offload,
    mac: [u8; 6],
    mtu: Option<u16>,
    mergeable: bool,
    /// A frame that waits for buffers of the guest: so many bytes of `received`.
    waiting: usize,
    received: Vec<u8>,
    sent: Vec<u8>,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").field("tap", &self.tap).field("mac", &self.mac).finish_non_exhaustive()
    }
}

impl Net {
    /// A device on a non-blocking tap whose frames begin with a header of 12 bytes.
    pub(crate) fn new(tap: File, offload: Offload, mac: [u8; 6], mtu: Option<u16>) -> Self {
        let frame = || vec![0; MOST_BYTES];
        Self { tap, offload, mac, mtu, mergeable: false, waiting: 0, received: frame(), sent: frame() }
    }

    fn receive(&mut self, queue: &mut VirtQueue, memory: &GuestMemory) -> Result<bool, String> {
        for _ in 0..MOST_FRAMES {
            if self.waiting == 0 {
                match self.tap.read(&mut self.received) {
                    Ok(length) if length > HEADER => self.waiting = length,
                    Ok(_) => return Ok(false),
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    // No frame, or a link that is down: the tap wakes us for the next.
                    Err(_) => return Ok(false),
                }
            }
            let frame = self.received.get_mut(..self.waiting).unwrap_or_default();
            if queue::deliver(&mut queue.queue, memory, frame, self.mergeable)? {
                self.waiting = 0;
            } else if !queue::wait(&mut queue.queue, memory)? {
                return Ok(false);
            } else if !queue::deliver(&mut queue.queue, memory, frame, self.mergeable)? {
                // There are buffers, and not enough for this frame: the next doorbell brings more.
                return Ok(false);
            } else {
                self.waiting = 0;
            }
        }
        Ok(true)
    }

    fn transmit(&mut self, queue: &mut VirtQueue, memory: &GuestMemory) -> Result<bool, String> {
        for _ in 0..MOST_FRAMES {
            match queue::take(&mut queue.queue, memory, &mut self.sent)? {
                None if !queue::wait(&mut queue.queue, memory)? => return Ok(false),
                None | Some(0) => {}
                // A frame that the tap refuses is lost, as on any wire: its header is malformed, or the link is down.
                Some(length) => drop(self.tap.write(self.sent.get(..length).unwrap_or_default())),
            }
        }
        Ok(true)
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
        F_MAC | F_STATUS | F_MERGEABLE | offloads | self.mtu.map_or(0, |_| F_MTU)
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 2]
    }

    /// §5.1.4: address, status, pairs of queues, MTU.
    fn configuration(&self) -> Vec<u8> {
        let mut bytes = self.mac.to_vec();
        bytes.extend(LINK_UP.to_le_bytes());
        bytes.extend(1_u16.to_le_bytes());
        bytes.extend(self.mtu.unwrap_or_default().to_le_bytes());
        bytes
    }

    fn start(&mut self, features: u64) {
        self.mergeable = features & F_MERGEABLE != 0;
        let taken = [(F_GUEST_CSUM, TUN_F_CSUM), (F_GUEST_TSO4, TUN_F_TSO4), (F_GUEST_TSO6, TUN_F_TSO6)];
        let flags =
            taken.iter().filter(|(feature, _)| features & feature != 0).fold(0, |flags, (_, flag)| flags | flag);
        if let Err(error) = (self.offload)(flags) {
            tracing::warn!(%error, "the tap keeps its offloads: the guest may see frames that it did not ask for");
        }
    }

    fn reset(&mut self) {
        self.waiting = 0;
    }

    fn serve(
        &mut self,
        queue: usize,
        queues: &mut [VirtQueue],
        memory: &GuestMemory,
        interrupts: &mut Interrupts<'_>,
    ) -> Result<bool, Malformed> {
        let Some(used) = queues.get_mut(queue) else { return Ok(false) };
        let more = match queue {
            RECEIVE => self.receive(used, memory),
            TRANSMIT => self.transmit(used, memory),
            _ => Ok(false),
        };
        let more = more.map_err(|reason| Malformed { device: self.name(), queue, reason })?;
        interrupts.used(used, memory);
        Ok(more)
    }
}
