//! What a virtio device has to do, once transport, queues and interrupts are taken care of.

use std::fmt::Debug;

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueOwnedT as _, QueueT as _};
use vmm_sys_util::eventfd::EventFd;

use super::msix::Msix;
use super::spec::NO_VECTOR;
use crate::memory::GuestMemory;

/// A queue and where it interrupts.
#[derive(Debug)]
pub(crate) struct VirtQueue {
    pub(crate) queue: Queue,
    pub(crate) vector: u16,
    /// The most that the guest may make it.
    pub(crate) most: u16,
}

impl VirtQueue {
    /// A queue of at most `most` descriptors, a power of two.
    ///
    /// # Errors
    /// When `most` is no size of a queue.
    pub(crate) fn new(most: u16) -> Result<Self, virtio_queue::Error> {
        Ok(Self { queue: Queue::new(most)?, vector: NO_VECTOR, most })
    }
}

/// Asks for a doorbell at the next buffer of a queue. Whether there is one already.
///
/// # Errors
/// When the ring is inconsistent: looking again would never end.
pub(crate) fn wait(queue: &mut Queue, memory: &GuestMemory) -> Result<bool, String> {
    if !queue.enable_notification(memory).map_err(|error| error.to_string())? {
        return Ok(false);
    }
    if queue.pop_descriptor_chain(memory).is_none() {
        return Err("the ring of available buffers is inconsistent".to_owned());
    }
    queue.go_to_previous_position();
    Ok(true)
}

/// Tells the guest that a queue was used.
#[derive(Debug)]
pub(crate) struct Interrupts<'a> {
    pub(super) msix: &'a mut Msix,
    pub(super) isr: &'a mut u8,
}

impl Interrupts<'_> {
    /// Interrupts for a queue, unless the guest asked for silence.
    pub(crate) fn used(&mut self, queue: &mut VirtQueue, memory: &GuestMemory) {
        // A ring that cannot be read any more needs no interrupt: the next use of it fails and says so.
        if queue.queue.needs_notification(memory).unwrap_or(false) {
            *self.isr |= 1;
            self.msix.trigger(queue.vector);
        }
    }
}

/// What changes a device from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The link has a carrier, or none.
    Link {
        /// Whether it has.
        up: bool,
    },
    /// So much of the guest's memory should be in its balloon.
    Balloon {
        /// In bytes.
        bytes: u64,
    },
}

/// A queue of a device holds what no driver may put there.
#[derive(Debug, thiserror::Error)]
#[error("queue {queue} of the virtio device {device} is malformed: {reason}")]
pub(crate) struct Malformed {
    pub(crate) device: &'static str,
    pub(crate) queue: usize,
    pub(crate) reason: String,
}

/// The doorbells of a function's queues.
pub(crate) trait Doorbells: Debug + Send {
    /// They begin at an address in memory, and at a port, each if there is one.
    fn place(&mut self, memory: Option<u64>, port: Option<u16>);

    /// Has every queue served.
    fn ring(&self);

    /// Has the event loop listen to the doorbells of the queues from `first` on, and to the device's input if that is all
    /// of them.
    fn listen(&self, first: usize);

    /// What is written when the guest rings for a queue.
    fn event(&self, queue: usize) -> Option<&EventFd>;
}

/// The queues of a device whose driver begins, for a device that has others serve them.
pub(crate) struct Rings<'a> {
    pub(crate) queues: &'a mut [VirtQueue],
    pub(crate) memory: &'a GuestMemory,
    pub(super) msix: &'a Msix,
    pub(super) doorbells: &'a dyn Doorbells,
}

impl Rings<'_> {
    /// What is written when the guest rings for a queue.
    pub(crate) fn doorbell(&self, queue: usize) -> Option<&EventFd> {
        self.doorbells.event(queue)
    }

    /// What interrupts for a queue when it is written.
    pub(crate) fn interrupt(&self, queue: usize) -> Option<&EventFd> {
        self.queues.get(queue).and_then(|queue| self.msix.event(queue.vector))
    }
}

/// Which received frames the driver of a network device wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct FilterState {
    /// The guest's address, which its driver may have changed.
    pub(crate) mac: [u8; 6],
    /// A bit for each mode of §5.1.6.5.1, by the number of its command.
    pub(crate) modes: u8,
    /// Addresses beyond the guest's own; `None` for a table that was too long, which passes all.
    pub(crate) unicast: Option<Vec<[u8; 6]>>,
    /// The same for groups.
    pub(crate) multicast: Option<Vec<[u8; 6]>>,
}

/// What a device has beyond its queues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", tag = "kind")]
pub(crate) enum DeviceState {
    /// Nothing.
    None,
    /// A network device.
    #[serde(rename_all = "camelCase")]
    Net {
        /// Pairs of queues that the driver uses.
        pairs: u16,
        /// Whether the driver is asked to announce the guest.
        announce: bool,
        /// Whether the link has no carrier.
        link_down: bool,
        /// Which received frames the driver wants; absent in documents of a release that had no filters.
        #[serde(default)]
        filter: Option<FilterState>,
    },
    /// A memory balloon, in pages of 4096 bytes.
    #[serde(rename_all = "camelCase")]
    Balloon {
        /// What the host asks for.
        asked: u32,
        /// What the guest says is in it.
        actual: u32,
    },
}

/// A virtio device.
pub(crate) trait Device: Debug + Send {
    /// Its name in logs.
    fn name(&self) -> &'static str;

    /// Its type (§5).
    fn device_type(&self) -> u16;

    /// PCI class, subclass and interface in the upper 24 bits.
    fn class(&self) -> u32;

    /// Features beyond those of the transport.
    fn features(&self) -> u64;

    /// Size of each of its queues.
    fn queue_sizes(&self) -> Vec<u16>;

    /// Its configuration space as bytes.
    fn configuration(&self) -> Vec<u8>;

    /// The driver writes to the configuration space.
    fn write_configuration(&mut self, _offset: u64, _data: &[u8]) {}

    /// The driver has taken these features and begins, or goes on after [`Self::stop`]. Returns how many of the first queues
    /// are served elsewhere from now on.
    fn start(&mut self, _features: u64, _rings: &mut Rings<'_>) -> usize {
        0
    }

    /// The machine is paused: queues that are served elsewhere come back as they are.
    fn stop(&mut self, _rings: &mut Rings<'_>) {}

    /// The driver has reset the device, or is going to.
    fn reset(&mut self) {}

    /// Something of the host's changed; whether the configuration did.
    fn on_change(&mut self, _change: Change) -> bool {
        false
    }

    /// What it has beyond its queues, while it is stopped.
    fn save(&self) -> DeviceState {
        DeviceState::None
    }

    /// Takes over the state of a device of its kind, before it starts.
    fn restore(&mut self, _state: &DeviceState) {}

    /// Serves what the guest put into a queue, or a part of it: whether there is more.
    ///
    /// # Errors
    /// When the queue is malformed; the device is then stopped until the guest resets it.
    fn serve(
        &mut self,
        queue: usize,
        queues: &mut [VirtQueue],
        memory: &GuestMemory,
        interrupts: &mut Interrupts<'_>,
    ) -> Result<bool, Malformed>;
}
