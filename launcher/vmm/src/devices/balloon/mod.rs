//! The memory balloon, virtio-balloon (Virtual I/O Device 1.2, §5.5): memory that the guest does not use goes back to the host.
//!
//! Flow: the guest reports pages that are free (§5.5.6.7), or gives pages into the balloon up to the size that the host asks
//! for; the host takes them, and gives new ones, of zeros, when the guest touches them again. Guarantees: nothing but the
//! guest's own memory is taken; a guest that runs out of memory takes pages out of the balloon.

mod device;
mod queue;
mod spec;
#[cfg(test)]
mod tests;

pub(crate) use device::Balloon;
