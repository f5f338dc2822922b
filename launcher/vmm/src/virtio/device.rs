//! What a virtio device has to do, once transport, queues and interrupts are taken care of.

use std::fmt::Debug;

use virtio_queue::{Queue, QueueT as _};

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

/// A queue of a device holds what no driver may put there.
#[derive(Debug, thiserror::Error)]
#[error("queue {queue} of the virtio device {device} is malformed: {reason}")]
pub(crate) struct Malformed {
    pub(crate) device: &'static str,
    pub(crate) queue: usize,
    pub(crate) reason: String,
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

    /// The driver has taken these features and begins.
    fn start(&mut self, _features: u64) {}

    /// The driver has reset the device.
    fn reset(&mut self) {}

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
