//! Tests of the transport, as a driver uses it.

use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::EventFd;

use super::configuration::Configuration;
use super::device::{Device, Doorbells, Interrupts, Malformed, VirtQueue};
use super::function::{Function, Shared};
use super::msix::{Message, Vectors};
use super::spec::{CAP_DEVICE, DRIVER_OK, FEATURES_OK, NEEDS_RESET, NO_VECTOR};
use super::state::FunctionState;
use crate::devices::golden;
use crate::memory::map;
use crate::pci::Function as _;
use crate::sync::lock;

const BAR: u32 = 0xc000_8000;
const PORT: u16 = 0xc100;
const DEVICE_FEATURE: u64 = 4;
const STATUS: u64 = 20;

/// What happened, in words.
type Log = Arc<Mutex<Vec<String>>>;

#[derive(Debug)]
struct Recorder(Log);

impl Vectors for Recorder {
    fn route(&self, vector: u16, message: Message) {
        let line = format!("vector {vector} sends {:#x} to {:#x}", message.data, message.address);
        let mut log = lock(&self.0);
        if !log.contains(&line) {
            log.push(line);
        }
    }

    fn fire(&self, vector: u16) {
        lock(&self.0).push(format!("vector {vector} fires"));
    }

    fn set_open(&self, _: u16, _: bool) {}

    fn event(&self, _: u16) -> Option<&EventFd> {
        None
    }
}

impl Doorbells for Recorder {
    fn place(&mut self, memory: Option<u64>, port: Option<u16>) {
        lock(&self.0).push(format!("doorbells at {memory:x?}, {port:x?}"));
    }

    fn ring(&self) {
        lock(&self.0).push("doorbells ring".to_owned());
    }

    fn listen(&self, first: usize) {
        if first > 0 {
            lock(&self.0).push(format!("queues up to {first} are served elsewhere"));
        }
    }

    fn event(&self, _: usize) -> Option<&EventFd> {
        None
    }
}

/// A device of two queues that interrupts for each request.
#[derive(Debug)]
struct Plain(Log);

impl Device for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn device_type(&self) -> u16 {
        4
    }

    fn class(&self) -> u32 {
        0x00_ff00
    }

    fn features(&self) -> u64 {
        1 << 3
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![8, 256]
    }

    fn configuration(&self) -> Vec<u8> {
        vec![1, 2, 3]
    }

    fn serve(
        &mut self,
        queue: usize,
        _: &mut [VirtQueue],
        _: &crate::memory::GuestMemory,
        interrupts: &mut Interrupts<'_>,
    ) -> Result<bool, Malformed> {
        lock(&self.0).push(format!("queue {queue} is served"));
        interrupts.msix.trigger(1);
        if queue == 1 { Err(Malformed { device: "plain", queue, reason: "test".to_owned() }) } else { Ok(false) }
    }
}

fn function() -> (Shared, Log) {
    let log = Log::default();
    let recorder = || Box::new(Recorder(Arc::clone(&log)));
    let function = Function::new(
        Box::new(Plain(Arc::clone(&log))),
        map(32 << 20, None).unwrap(),
        recorder(),
        recorder(),
        BAR,
        PORT,
    );
    let mut shared = Arc::new(Mutex::new(function.unwrap()));
    shared.write(1, 0b110, 0xffff);
    lock(&log).clear();
    (shared, log)
}

fn read<const N: usize>(function: &mut Shared, offset: u64) -> [u8; N] {
    let mut data = [0xff; N];
    function.read_window(offset, &mut data);
    data
}

fn negotiate(function: &mut Shared) {
    for (select, half) in [(0_u32, 1_u32 << 3), (1, 1)] {
        function.write_window(8, &select.to_le_bytes());
        function.write_window(12, &half.to_le_bytes());
    }
    function.write_window(STATUS, &[1 | 2 | FEATURES_OK]);
}

fn set_up(function: &mut Shared, queue: u16, base: u64) {
    function.write_window(22, &queue.to_le_bytes());
    function.write_window(24, &8_u16.to_le_bytes());
    function.write_window(26, &1_u16.to_le_bytes());
    for (register, offset) in [(32, 0), (40, 0x1000), (48, 0x2000)] {
        function.write_window(register, &(base + offset).to_le_bytes());
    }
    function.write_window(28, &1_u16.to_le_bytes());
}

// spec: LAB-8
#[test]
fn the_capabilities_lead_to_all_parts() {
    let (mut function, _) = function();
    assert_eq!(function.read(0), 0x1044_1af4);
    assert_eq!(function.read(2), 0x00ff_0001);
    let (mut at, mut found) = ((function.read(13) & 0xff) as u16, Vec::new());
    while at != 0 {
        let [id, next, _, kind] = function.read(at / 4).to_le_bytes();
        found.push((id, if id == 9 { kind } else { 0 }));
        at = next.into();
    }
    assert_eq!(found, [(0x11, 0), (9, 1), (9, 2), (9, 2), (9, 3), (9, 4), (9, 5)]);
}

#[test]
fn a_device_without_configuration_has_no_capability_for_it() {
    for (has_device, expected) in [(true, 7), (false, 6)] {
        let configuration = Configuration::new(4, 0, 0, (0xc000_0000, 0xc000), has_device);
        let (mut at, mut kinds) = ((configuration.read(13) & 0xff) as u16, Vec::new());
        while at != 0 {
            let [_, next, _, kind] = configuration.read(at / 4).to_le_bytes();
            kinds.push(kind);
            at = next.into();
        }
        assert_eq!((kinds.len(), kinds[1..].contains(&CAP_DEVICE)), (expected, has_device));
    }
}

// spec: LAB-8
#[test]
fn registers_are_read_by_halves_and_bytes() {
    let (mut function, _) = function();
    let whole = u32::from_le_bytes(read(&mut function, DEVICE_FEATURE));
    assert_eq!(whole & 1 << 3, 1 << 3);
    let halves = [read::<2>(&mut function, DEVICE_FEATURE), read::<2>(&mut function, DEVICE_FEATURE + 2)];
    assert_eq!(halves.concat(), whole.to_le_bytes());
    function.write_window(8, &[1]);
    function.write_window(12, &[0xaa]);
    function.write_window(13, &[0xbb]);
    assert_eq!(read::<4>(&mut function, 12), [0xaa, 0xbb, 0, 0]);
    assert_eq!(read::<4>(&mut function, 0x2001), [2, 3, 0xff, 0xff], "the device's own, and nothing behind it");
}

#[test]
fn features_that_were_not_offered_are_not_taken() {
    let (mut function, _) = function();
    function.write_window(12, &(1_u32 << 5).to_le_bytes());
    function.write_window(STATUS, &[FEATURES_OK | DRIVER_OK]);
    assert_eq!(read(&mut function, STATUS), [0]);
    function.write_window(STATUS, &[0]);
    negotiate(&mut function);
    assert_eq!(read(&mut function, STATUS), [11]);
}

#[test]
fn the_bar_is_sized_and_moved_and_its_doorbells_follow() {
    let (mut function, log) = function();
    function.write(4, u32::MAX, u32::MAX);
    assert_eq!(function.read(4), 0xffff_8000);
    function.write(4, 0xd000_0000, u32::MAX);
    assert_eq!(function.window(), Some((0xd000_0000, 0x8000)));
    function.write(1, 0, 0xffff);
    assert_eq!(function.window(), None);
    assert_eq!(lock(&log).last().map(String::as_str), Some("doorbells at None, None"));
    assert!(lock(&log).contains(&"doorbells at Some(d0003000), None".to_owned()));
}

// spec: LAB-8
#[test]
fn doorbells_are_ports_too_once_ports_are_decoded() {
    let (mut function, log) = function();
    function.write(5, u32::MAX, u32::MAX);
    assert_eq!(function.read(5), 0xff01, "256 ports");
    function.write(5, 0xd200, u32::MAX);
    function.write(1, 0b111, 0xffff);
    assert_eq!(lock(&log).last().map(String::as_str), Some("doorbells at Some(c000b000), Some(d200)"));
}

// spec: LAB-8
#[test]
fn a_masked_interrupt_waits_and_is_sent_once() {
    let (mut function, log) = function();
    negotiate(&mut function);
    set_up(&mut function, 0, 0x10_0000);
    function.write_window(STATUS, &[1 | 2 | FEATURES_OK | DRIVER_OK]);
    function.write(16, 0x8000_0000, 0xffff_0000);
    lock(&function).serve(0);
    assert_eq!(read::<1>(&mut function, 0x5000), [0b10]);
    for (offset, word) in [(0x10_u64, 0xfee0_0000_u32), (0x18, 0x41), (0x1c, 0)] {
        function.write_window(0x4000 + offset, &word.to_le_bytes());
    }
    assert_eq!(read::<1>(&mut function, 0x5000), [0]);
    let log = lock(&log).clone();
    assert_eq!(log, ["doorbells ring", "queue 0 is served", "vector 1 sends 0x41 to 0xfee00000", "vector 1 fires"]);
}

// spec: LAB-9
#[test]
fn a_malformed_queue_stops_the_device_until_it_is_reset() {
    let (mut function, log) = function();
    negotiate(&mut function);
    set_up(&mut function, 1, 0x10_0000);
    function.write_window(STATUS, &[1 | 2 | FEATURES_OK | DRIVER_OK]);
    lock(&function).serve(1);
    lock(&function).serve(1);
    assert_eq!(lock(&log).iter().filter(|line| *line == "queue 1 is served").count(), 1);
    assert_eq!(read::<1>(&mut function, STATUS)[0] & NEEDS_RESET, NEEDS_RESET);
    function.write_window(STATUS, &[0]);
    assert_eq!(read::<1>(&mut function, STATUS), [0]);
    function.write_window(22, &1_u16.to_le_bytes());
    assert_eq!(read::<2>(&mut function, 28), [0, 0], "a reset disables queues");
    assert_eq!(read::<2>(&mut function, 26), NO_VECTOR.to_le_bytes());
}

#[test]
fn a_queue_outside_memory_is_not_enabled() {
    let (mut function, _) = function();
    negotiate(&mut function);
    set_up(&mut function, 0, u64::MAX - 0xffff);
    assert_eq!(read::<2>(&mut function, 28), [0, 0]);
    assert_eq!(read::<1>(&mut function, STATUS)[0] & NEEDS_RESET, NEEDS_RESET);
}

#[test]
fn the_window_of_configuration_space_shows_the_registers() {
    let (mut function, _) = function();
    let at = 0x90 / 4;
    function.write(at + 2, 4, u32::MAX);
    function.write(at + 3, 2, u32::MAX);
    assert_eq!(function.read(at + 4) & 0xffff, 1 << 3);
    function.write(at + 2, 20, u32::MAX);
    function.write(at + 3, 1, u32::MAX);
    function.write(at + 4, 1, 0xff);
    assert_eq!(read::<1>(&mut function, STATUS), [1]);
    for (offset, length) in [(1, 2), (0x7fff, 4), (u32::MAX, 4), (0, 3), (0, u32::MAX)] {
        function.write(at + 2, offset, u32::MAX);
        function.write(at + 3, length, u32::MAX);
        assert_eq!(function.read(at + 4), u32::MAX, "{offset:#x} {length}");
        function.write(at + 4, 0, u32::MAX);
    }
}

// spec: LAB-9
#[test]
fn no_access_to_a_virtio_function_panics() {
    let (mut function, _) = function();
    for size in [1, 2, 3, 4, 8] {
        for offset in (0..0x8000).step_by(3) {
            function.read_window(offset, &mut vec![0; size]);
            function.write_window(offset, &vec![0x5a; size]);
        }
        for register in 0..1024 {
            function.read(register);
            function.write(register, 0xa5a5_a5a5, u32::MAX >> size);
        }
    }
}

// spec: LAB-6
#[test]
fn a_function_that_runs_survives_a_snapshot() {
    let (mut first, _) = function();
    negotiate(&mut first);
    set_up(&mut first, 0, 0x10_0000);
    first.write_window(STATUS, &[1 | 2 | FEATURES_OK | DRIVER_OK]);
    first.write(16, 0x8000_0000, 0xffff_0000);
    let state: FunctionState = golden("virtio", &lock(&first).save());
    let (second, log) = function();
    lock(&second).restore(&state);
    assert_eq!(lock(&second).save(), state);
    lock(&second).resume();
    lock(&second).serve(0);
    assert!(lock(&log).contains(&"queue 0 is served".to_owned()));
}
