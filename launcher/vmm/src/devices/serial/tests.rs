//! Tests of the serial port.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::state::SerialState;
use super::{Console, Serial};
use crate::devices::golden;

struct Bench {
    serial: Serial,
    far: UnixStream,
    wake: Arc<EventFd>,
}

fn event() -> EventFd {
    EventFd::new(EFD_NONBLOCK).unwrap()
}

fn bench() -> Bench {
    let (near, far) = UnixStream::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    let wake = Arc::new(event());
    let console = Console::new(OwnedFd::from(near)).unwrap();
    Bench { serial: Serial::new(console, event(), Arc::clone(&wake)), far, wake }
}

#[test]
fn what_the_guest_writes_reaches_the_stream() {
    let mut bench = bench();
    for byte in b"login: " {
        bench.serial.write(0, *byte);
    }
    let mut read = [0; 16];
    assert_eq!(bench.far.read(&mut read).unwrap(), 7);
    assert_eq!(&read[..7], b"login: ");
}

#[test]
fn a_stream_without_reader_never_blocks_the_guest() {
    let mut bench = bench();
    for _ in 0..300_000 {
        bench.serial.write(0, b'x');
    }
    drop(bench.far);
    bench.serial.write(0, b'y');
}

#[test]
fn input_waits_for_room_and_arrives_in_order() {
    let mut bench = bench();
    let sent: Vec<u8> = (0..200).collect();
    bench.far.write_all(&sent).unwrap();
    let mut received = Vec::new();
    while received.len() < sent.len() {
        bench.serial.serve();
        // Bit 0 of the line status register: there is input.
        while bench.serial.read(5) & 1 != 0 {
            received.push(bench.serial.read(0));
        }
    }
    assert_eq!(received, sent);
    assert!(bench.wake.read().unwrap() > 0, "the loop was woken when there was room again");
}

// spec: LAB-6
#[test]
fn input_that_was_not_read_survives_a_snapshot() {
    let mut first = bench();
    first.far.write_all(b"ls\n").unwrap();
    first.serial.write(7, 0x42);
    first.serial.serve();
    let state: SerialState = golden("serial", &first.serial.save());
    let (near, _far) = UnixStream::pair().unwrap();
    let console = Console::new(OwnedFd::from(near)).unwrap();
    let mut restored = Serial::restore(state, console, event(), Arc::new(event())).unwrap();
    assert_eq!([0, 0, 0, 7].map(|register| restored.read(register)), [b'l', b's', b'\n', 0x42]);
}
