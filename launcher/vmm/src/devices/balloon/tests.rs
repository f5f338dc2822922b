//! Tests of the balloon, with a driver's queue in guest memory.

use virtio_queue::QueueT as _;
use vm_memory::{Bytes as _, GuestAddress};

use super::Balloon;
use super::queue::{Content, serve};
use crate::devices::driver::{WRITE, memory, queue};
use crate::devices::golden;
use crate::memory::GuestMemory;
use crate::virtio::{Change, Device as _, DeviceState};

/// Which of these addresses hold what was written to them.
fn kept(memory: &GuestMemory, addresses: &[u64]) -> Vec<bool> {
    addresses.iter().map(|address| memory.read_obj::<u8>(GuestAddress(*address)).unwrap() == 7).collect()
}

// spec: LAB-22
#[test]
fn whole_pages_of_a_free_buffer_are_taken_and_no_others() {
    let memory = memory();
    let addresses = [0x10_0000, 0x10_0fff, 0x10_1000, 0x10_2fff, 0x10_3000];
    for address in addresses {
        memory.write_obj(7_u8, GuestAddress(address)).unwrap();
    }
    let mut queue = queue(&memory, &[(0x10_0800, 0x2900, WRITE), (0x10_0000, 0x1000, 0)]);
    assert_eq!(serve(&mut queue, &memory, Content::Buffers), Ok(false));
    assert_eq!(kept(&memory, &addresses), [true, true, false, false, true], "a buffer to read from is not free");
    assert_eq!(queue.next_used(), 2);
}

// spec: LAB-22
#[test]
fn pages_in_the_balloon_are_taken() {
    let memory = memory();
    let addresses = [0x20_0000, 0x20_1000, 0x20_2000, 0x20_4000];
    for address in addresses {
        memory.write_obj(7_u8, GuestAddress(address)).unwrap();
    }
    for (at, page) in [0x201_u32, 0x200, 0x204, 0x200].into_iter().enumerate() {
        memory.write_obj(page, GuestAddress(0x30_0000 + 4 * at as u64)).unwrap();
    }
    let mut queue = queue(&memory, &[(0x30_0000, 18, 0)]);
    assert_eq!(serve(&mut queue, &memory, Content::Pages), Ok(false));
    assert_eq!(kept(&memory, &addresses), [false, false, true, false]);
}

// spec: LAB-22
#[test]
fn pages_outside_the_guests_memory_stop_the_balloon() {
    let memory = memory();
    for (content, chain) in [
        (Content::Buffers, (64 << 20, 0x1000, WRITE)),
        (Content::Buffers, ((32 << 20) - 0x1000, 0x2000, WRITE)),
        (Content::Buffers, (u64::MAX - 8, 64, WRITE)),
        (Content::Pages, (0x30_0000, 4, 0)),
        (Content::Pages, (64 << 20, 4, 0)),
    ] {
        memory.write_obj(u32::MAX, GuestAddress(0x30_0000)).unwrap();
        let mut queue = queue(&memory, &[chain]);
        assert!(serve(&mut queue, &memory, content).is_err(), "{content:?} {chain:x?}");
    }
}

// spec: LAB-6
#[test]
fn the_size_of_a_balloon_survives_a_snapshot() {
    let mut first = Balloon::default();
    assert!(first.on_change(Change::Balloon { bytes: 64 << 20 }));
    first.write_configuration(4, &5_u32.to_le_bytes());
    first.write_configuration(0, &[1; 4]);
    first.write_configuration(5, &[1; 3]);
    let state: DeviceState = golden("balloon", &first.save());
    let mut second = Balloon::default();
    second.restore(&state);
    assert_eq!(second.configuration(), [0, 0x40, 0, 0, 5, 0, 0, 0]);
}
