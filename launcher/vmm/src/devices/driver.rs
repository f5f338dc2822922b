//! A driver's side of a queue in guest memory, for tests of devices.

use virtio_queue::Queue;
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use virtio_queue::mock::MockSplitQueue;
use vm_memory::GuestAddress;

use crate::memory::{GuestMemory, map};

/// VRING_DESC_F_WRITE: the device writes the buffer.
pub(super) const WRITE: u16 = 2;

/// 32 MiB of it.
pub(super) fn memory() -> GuestMemory {
    map(32 << 20, None).unwrap()
}

/// A queue at 0x1000 of 16 entries in which these descriptors wait: address, length in bytes, flags.
pub(super) fn queue(memory: &GuestMemory, chains: &[(u64, u32, u16)]) -> Queue {
    let mock = MockSplitQueue::create(memory, GuestAddress(0x1000), 16);
    let descriptors: Vec<_> = chains
        .iter()
        .map(|(address, length, flags)| RawDescriptor::from(Descriptor::new(*address, *length, *flags, 0)))
        .collect();
    mock.add_desc_chains(&descriptors, 0).unwrap();
    mock.create_queue().unwrap()
}
