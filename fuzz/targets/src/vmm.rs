//! Targets `pci`, `mmio` and `virtqueue`: what a guest does to the devices of our KVM machine.
//!
//! An input is steps, each of a byte that says what happens and the bytes that it needs. Memory safety and an end of each
//! step are the fuzzer's to see; the checks are that what answers nothing reads as ones, that a queue is not served for
//! ever, and that a state survives its snapshot.

use std::fs::File;
use std::io::Write as _;

use vmm::fuzzing::{Devices, RAM};

/// Base of the first function's BAR 0, distance of two, and its parts (`virtio/spec.rs` of the machine).
const WINDOW: u64 = 0xc000_0000;
const BAR: u64 = 0x8000;
const ECAM: u64 = 0xe000_0000;
const PCI_ADDRESS: u16 = 0xcf8;
const PCI_DATA: u16 = 0xcfc;
const FUNCTIONS: u8 = 3;
/// Queues of the function with the most.
const QUEUES: u8 = 3;
/// Where a driver of [`virtqueue`] has its queues: each a table, a ring of available and one of used buffers.
const RINGS: u64 = 0x10_0000;
const OF_RING: u64 = 0x3000;
/// Times that a queue is served because it says that there is more. Each serves 64 buffers, and a ring has 256.
const MOST_TURNS: usize = 64;

/// The bytes of an input, one after the other; zeros after its end.
struct Steps<'a>(&'a [u8]);

impl<'a> Steps<'a> {
    fn byte(&mut self) -> u8 {
        let [byte] = self.bytes();
        byte
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        bytes[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        bytes
    }

    fn slice(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A file in memory with these bytes.
fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile_in("/dev/shm").expect("a file in memory");
    file.write_all(bytes).expect("room in memory");
    std::io::Seek::rewind(&mut file).expect("a file has a beginning");
    file
}

fn devices() -> Devices {
    Devices::new(file(&[0x5a; 3000]), file(&[7; 4096])).expect("memory for a machine's devices")
}

/// Each access has 1 to 8 bytes.
fn read(steps: &mut Steps<'_>, access: impl FnOnce(&mut [u8])) {
    let mut data = [0; 8];
    access(&mut data[..usize::from(steps.byte() % 8) + 1]);
}

fn write<R>(steps: &mut Steps<'_>, access: impl FnOnce(&[u8]) -> R) {
    let length = usize::from(steps.byte() % 8) + 1;
    access(steps.slice(length));
}

fn end(devices: &Devices) {
    let mut nothing = [0; 8];
    devices.read_memory(RAM + 0x1000, &mut nothing);
    assert_eq!(nothing, [0xff; 8], "an address of no device");
    assert!(devices.survives_a_snapshot(&self::devices()), "a function's state does not survive its snapshot");
}

/// Configuration space by both mechanisms, and what its BARs lead to.
pub fn pci(input: &[u8]) {
    let (devices, mut steps) = (devices(), Steps(input));
    while !steps.is_empty() {
        let what = steps.byte();
        let ecam = |at: [u8; 3]| ECAM + (u64::from(u32::from_le_bytes([at[0], at[1], at[2], 0])) & 0xf_ffff);
        match what % 6 {
            0 => drop(devices.write_port(PCI_ADDRESS, &[steps.bytes::<3>().as_slice(), &[0x80]].concat())),
            1 => {
                let at = PCI_DATA + u16::from(what / 6 % 4);
                read(&mut steps, |data| devices.read_port(at, data));
            }
            2 => {
                let at = PCI_DATA + u16::from(what / 6 % 4);
                write(&mut steps, |data| devices.write_port(at, data));
            }
            3 => {
                let at = ecam(steps.bytes());
                read(&mut steps, |data| devices.read_memory(at, data));
            }
            4 => {
                let at = ecam(steps.bytes());
                write(&mut steps, |data| devices.write_memory(at, data));
            }
            _ => devices.pause(),
        }
    }
    end(&devices);
}

/// Ports and addresses of all devices.
pub fn mmio(input: &[u8]) {
    let (devices, mut steps) = (devices(), Steps(input));
    while !steps.is_empty() {
        let what = steps.byte();
        let in_bars = |at: [u8; 2]| WINDOW + BAR + u64::from(u16::from_le_bytes(at)) * 2 % (BAR * u64::from(FUNCTIONS));
        match what % 6 {
            0 => {
                let port = u16::from_le_bytes(steps.bytes());
                read(&mut steps, |data| devices.read_port(port, data));
            }
            1 => {
                let port = u16::from_le_bytes(steps.bytes());
                write(&mut steps, |data| devices.write_port(port, data));
            }
            2 => {
                let at = in_bars(steps.bytes());
                read(&mut steps, |data| devices.read_memory(at, data));
            }
            3 => {
                let at = in_bars(steps.bytes());
                write(&mut steps, |data| devices.write_memory(at, data));
            }
            4 => {
                let at = u64::from_le_bytes(steps.bytes());
                read(&mut steps, |data| devices.read_memory(at, data));
            }
            _ => {
                devices.change(usize::from(what / 6 % FUNCTIONS), steps.byte() & 1 == 1, u64::from(steps.byte()) << 20)
            }
        }
    }
    end(&devices);
}

/// A driver that sets every queue up rightly, and puts anything into them.
pub fn virtqueue(input: &[u8]) {
    let (devices, mut steps) = (devices(), Steps(input));
    let features = [steps.bytes::<4>(), steps.bytes(), steps.bytes()];
    for (function, features) in (0..FUNCTIONS).zip(features) {
        begin(&devices, function, features);
    }
    while !steps.is_empty() {
        let what = steps.byte();
        let (function, queue) = (what / 4 % FUNCTIONS, steps.byte() % QUEUES);
        match what % 4 {
            0 => turn(&devices, function, queue),
            1 => {
                // A descriptor: most addresses near the beginning of RAM, so that many are right.
                let at = ring(function, queue) + 16 * u64::from(steps.byte());
                let [a, b, c, high] = steps.bytes::<4>();
                let address =
                    u64::from(u32::from_le_bytes([a, b, c, 0])) | if high > 250 { u64::from(high) << 40 } else { 0 };
                let [low, length, flags, next] = steps.bytes::<4>();
                let length = u32::from_le_bytes([low, length, 0, if flags & 0x80 != 0 { 0xff } else { 0 }]);
                let words = [&address.to_le_bytes()[..], &length.to_le_bytes(), &[flags & 7, 0, next, 0]].concat();
                devices.write_ram(at, &words);
            }
            2 => {
                let heads = usize::from(steps.byte() % 8) + 1;
                let entries: Vec<u8> = steps.slice(heads).iter().flat_map(|head| [*head, 0]).collect();
                let [low, high] = steps.bytes::<2>();
                let at = ring(function, queue) + 0x1000;
                devices.write_ram(at, &[&[0, 0, low, high & 1], entries.as_slice()].concat());
            }
            _ => {
                let at = u64::from(u32::from_le_bytes([steps.byte(), steps.byte(), steps.byte(), 0]));
                let length = usize::from(steps.byte());
                devices.write_ram(at, steps.slice(length));
            }
        }
    }
    end(&devices);
}

fn ring(function: u8, queue: u8) -> u64 {
    RINGS + OF_RING * u64::from(function * QUEUES + queue)
}

fn turn(devices: &Devices, function: u8, queue: u8) {
    let more = (0..MOST_TURNS).take_while(|_| devices.serve(function.into(), queue.into())).count();
    assert!(more < MOST_TURNS, "queue {queue} of function {function} is served for ever");
}

/// Negotiates what is offered and in `features`, and sets all queues up (Virtual I/O Device 1.2, §3.1).
fn begin(devices: &Devices, function: u8, features: [u8; 4]) {
    let bar = WINDOW + BAR * (u64::from(function) + 1);
    let write = |register: u64, data: &[u8]| devices.write_memory(bar + register, data);
    let ecam = ECAM + (u64::from(function) + 1) * 0x8000;
    devices.write_memory(ecam + 4, &[7]);
    write(20, &[3]);
    let mut offered = [0; 4];
    write(0, &[0; 4]);
    devices.read_memory(bar + 4, &mut offered);
    write(8, &[0; 4]);
    write(12, &[0, 1, 2, 3].map(|at| offered[at] & features[at]));
    write(8, &[1, 0, 0, 0]);
    write(12, &[1, 0, 0, 0]);
    write(20, &[11]);
    for queue in 0..QUEUES {
        write(22, &[queue, 0]);
        let at = ring(function, queue);
        for (register, address) in [(32, at), (40, at + 0x1000), (48, at + 0x2000)] {
            write(register, &address.to_le_bytes());
        }
        write(26, &[queue + 1, 0]);
        write(28, &[1, 0]);
    }
    write(20, &[15]);
}
