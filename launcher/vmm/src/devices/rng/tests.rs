//! Tests of the entropy source, with a driver's queue in guest memory.

use virtio_queue::mock::MockSplitQueue;
use virtio_queue::{Queue, QueueT as _};
use vm_memory::{Address as _, Bytes as _, GuestAddress};

use super::queue::fill;
use crate::devices::driver::{WRITE, memory, queue};

#[test]
fn a_request_is_filled_and_no_byte_beyond_it_is_touched() {
    let memory = memory();
    let mut queue = queue(&memory, &[(0x10_0000, 64, WRITE), (0x20_0000, 100_000, WRITE)]);
    let mut source = [0xa5_u8; 8192].as_slice();
    assert_eq!(fill(&mut source, &mut queue, &memory), Ok(false));
    let read = |address| memory.read_obj::<[u8; 4]>(GuestAddress(address)).unwrap();
    assert_eq!(read(0x10_0000 + 60), [0xa5; 4]);
    assert_eq!(read(0x10_0000 + 64), [0; 4]);
    assert_eq!((read(0x20_0000 + 4092), read(0x20_0000 + 4096)), ([0xa5; 4], [0; 4]));
    assert_eq!(queue.next_used(), 2);
}

// spec: LAB-9
#[test]
fn malformed_requests_are_errors_and_end() {
    let memory = memory();
    let outcome = |chain| {
        let mut queue = queue(&memory, &[chain]);
        (fill(&mut std::io::repeat(1), &mut queue, &memory).ok(), queue.next_used())
    };
    assert_eq!(outcome((0x10_0000, 64, 0)), (Some(false), 1), "a request without room is used with no bytes");
    assert_eq!(outcome((u64::MAX - 8, 64, WRITE)), (None, 0), "one that wraps stops the device");
    assert_eq!(outcome((64 << 20, 64, WRITE)), (None, 0), "so does one outside memory");
    let mock = MockSplitQueue::create(&memory, GuestAddress(0x1000), 16);
    let mut queue = mock.create_queue::<Queue>().unwrap();
    // The index of the ring of available buffers, far beyond the queue's size.
    memory.write_obj(0x7fff_u16, mock.avail_addr().checked_add(2).unwrap()).unwrap();
    assert!(fill(&mut std::io::repeat(1), &mut queue, &memory).is_err());
}
