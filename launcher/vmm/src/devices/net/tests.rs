//! Tests of the network device, with a driver's queues in guest memory.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use virtio_queue::QueueT as _;
use vm_memory::{Bytes as _, GuestAddress};

use super::queue::{deliver, take};
use super::spec::{BUFFERS_AT, HEADER};
use super::{Net, NetSettings, NicReport};
use crate::devices::driver::{WRITE, memory, queue};
use crate::devices::golden;
use crate::memory::GuestMemory;
use crate::virtio::{Change, Device as _, DeviceState, wait};

fn bytes(memory: &GuestMemory, address: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
    bytes
}

// spec: LAB-10
#[test]
fn a_frame_goes_into_as_many_buffers_as_it_needs_and_says_so() {
    let memory = memory();
    let mut queue = queue(&memory, &[(0x10_0000, 64, WRITE), (0x20_0000, 64, WRITE), (0x30_0000, 64, WRITE)]);
    let mut frame: Vec<u8> = (0..100).collect();
    assert_eq!(deliver(&mut queue, &memory, &mut frame, true), Ok(true));
    assert_eq!(bytes(&memory, 0x10_0000 + BUFFERS_AT as u64, 2), [2, 0]);
    assert_eq!(bytes(&memory, 0x10_0000 + HEADER as u64, 52), (12..64).collect::<Vec<u8>>());
    assert_eq!(bytes(&memory, 0x20_0000, 37), (64..100).chain([0]).collect::<Vec<u8>>());
    assert_eq!((queue.next_avail(), queue.next_used()), (2, 2));
}

// spec: LAB-10
#[test]
fn without_enough_buffers_nothing_is_taken_and_the_frame_stays() {
    let memory = memory();
    let mut queue = queue(&memory, &[(0x10_0000, 64, WRITE)]);
    assert_eq!(deliver(&mut queue, &memory, &mut [1; 100], true), Ok(false));
    assert_eq!((queue.next_avail(), queue.next_used()), (0, 0));
    assert_eq!(deliver(&mut queue, &memory, &mut [1; 64], true), Ok(true));
}

// spec: LAB-10
#[test]
fn a_driver_without_mergeable_buffers_loses_what_does_not_fit() {
    let memory = memory();
    let mut queue = queue(&memory, &[(0x10_0000, 64, WRITE), (0x20_0000, 128, WRITE)]);
    assert_eq!(deliver(&mut queue, &memory, &mut [1; 100], false), Ok(true));
    assert_eq!(bytes(&memory, 0x10_0000, 64), [0; 64]);
    assert_eq!(deliver(&mut queue, &memory, &mut [1; 100], false), Ok(true));
    assert_eq!(bytes(&memory, 0x20_0000 + 99, 2), [1, 0]);
}

// spec: LAB-10
#[test]
fn malformed_buffers_are_errors() {
    let memory = memory();
    for chain in [(0x10_0000, 8, WRITE), (0x10_0000, 64, 0), (u64::MAX - 8, 64, WRITE), (64 << 20, 64, WRITE)] {
        let mut queue = queue(&memory, &[chain]);
        assert!(deliver(&mut queue, &memory, &mut [1; 60], true).is_err(), "{chain:x?}");
    }
    let mut queue = queue(&memory, &[(64 << 20, 64, 0)]);
    assert!(take(&mut queue, &memory, &mut [0; 2048]).is_err());
}

// spec: LAB-10
#[test]
fn frames_that_are_too_short_or_too_long_are_dropped() {
    let memory = memory();
    memory.write_slice(&[7; 60], GuestAddress(0x10_0000)).unwrap();
    let mut queue = queue(&memory, &[(0x10_0000, 25, 0), (0x10_0000, 4096, 0), (0x10_0000, 60, 0)]);
    let mut frame = [0; 2048];
    assert_eq!(take(&mut queue, &memory, &mut frame), Ok(Some(0)));
    assert_eq!(take(&mut queue, &memory, &mut frame), Ok(Some(0)));
    assert_eq!(take(&mut queue, &memory, &mut frame), Ok(Some(60)));
    assert_eq!((&frame[..60], frame[60]), (&[7; 60][..], 0));
    assert_eq!(take(&mut queue, &memory, &mut frame), Ok(None));
    assert_eq!((wait(&mut queue, &memory), queue.next_used()), (Ok(false), 3));
}

// spec: LAB-6
#[test]
fn a_link_without_carrier_survives_a_snapshot() {
    let device = |link_down| {
        let (tap, _far) = UnixStream::pair().unwrap();
        let settings = NetSettings { mac: [2, 0, 0, 0, 0, 1], mtu: None, link_down };
        Net::new(settings, vec![(OwnedFd::from(tap), None)], Arc::new(NicReport::new(1)))
    };
    let mut first = device(false);
    first.on_change(Change::Link { up: false });
    let state: DeviceState = golden("net", &first.save());
    let mut second = device(false);
    second.restore(&state);
    assert_eq!(second.save(), state);
    assert_eq!(second.configuration(), device(true).configuration());
    // Of a release without filters.
    let older = r#"{"kind": "net", "pairs": 1, "announce": false, "linkDown": true}"#;
    let mut third = device(false);
    third.restore(&serde_json::from_str(older).unwrap());
    assert_eq!(third.save(), state);
}
