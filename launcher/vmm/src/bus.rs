//! Which device a guest's port or memory access reaches: one function for each, read from top to bottom.
//!
//! What no device claims reads as all ones and swallows writes, as an empty bus does. An access may have any size from 1
//! to 8 bytes and any alignment: each device is given the bytes one by one unless its registers are wider.

use std::sync::Mutex;

use crate::devices::{DebugPort, I8042, Power, PowerRequest, Pvpanic, Rtc, Serial};
use crate::layout::{
    DEBUG_PORT, ECAM, ECAM_SIZE, I8042_COMMAND, I8042_DATA, PCI_ADDRESS, PCI_DATA, POWER, POWER_PORTS, PVPANIC, RTC,
    SERIAL, SERIAL_PORTS,
};
use crate::pci::Pci;
use crate::sync::lock;
use crate::sys::clock;

/// What a write asks of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// A new start.
    Reset,
    /// The end.
    PowerOff,
    /// The guest's kernel gave up.
    Crash,
}

/// All devices of a machine. Each has a lock of its own: processors that use different ones do not meet.
#[derive(Debug)]
pub(crate) struct Bus {
    pub(crate) serial: Mutex<Serial>,
    pub(crate) rtc: Mutex<Rtc>,
    pub(crate) power: Mutex<Power>,
    pub(crate) i8042: I8042,
    pub(crate) pvpanic: Pvpanic,
    pub(crate) debug: Mutex<DebugPort>,
    pub(crate) pci: Mutex<Pci>,
}

impl Bus {
    /// A read from a port. `data` holds all ones where no device answers.
    pub(crate) fn read_port(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        if let Some(register) = within(port, PCI_DATA, 4) {
            return lock(&self.pci).read_data(register, data);
        }
        if port == PCI_ADDRESS && data.len() == 4 {
            return data.copy_from_slice(&lock(&self.pci).address().to_le_bytes());
        }
        let mut port = port;
        for byte in data {
            if let Some(value) = self.read_byte(port) {
                *byte = value;
            }
            port = port.wrapping_add(1);
        }
    }

    fn read_byte(&self, port: u16) -> Option<u8> {
        if let Some(register) = within(port, SERIAL, SERIAL_PORTS) {
            return Some(lock(&self.serial).read(register));
        }
        if let Some(register) = within(port, POWER, POWER_PORTS) {
            return Some(lock(&self.power).read(register));
        }
        match port {
            RTC => Some(lock(&self.rtc).index()),
            _ if port == RTC + 1 => Some(lock(&self.rtc).read(clock::seconds_of_unix())),
            I8042_DATA | I8042_COMMAND => Some(self.i8042.read()),
            DEBUG_PORT => Some(lock(&self.debug).read()),
            PVPANIC => Some(self.pvpanic.read()),
            _ => None,
        }
    }

    /// A write to a port.
    pub(crate) fn write_port(&self, port: u16, data: &[u8]) -> Option<Request> {
        if let Some(register) = within(port, PCI_DATA, 4) {
            lock(&self.pci).write_data(register, data);
            return None;
        }
        if let (PCI_ADDRESS, &[a, b, c, d]) = (port, data) {
            lock(&self.pci).set_address(u32::from_le_bytes([a, b, c, d]));
            return None;
        }
        let ports = (0..).map(|offset| port.wrapping_add(offset));
        // All bytes arrive, whatever the first of them asks.
        ports.zip(data).fold(None, |request, (port, byte)| request.or(self.write_byte(port, *byte)))
    }

    fn write_byte(&self, port: u16, value: u8) -> Option<Request> {
        if let Some(register) = within(port, SERIAL, SERIAL_PORTS) {
            lock(&self.serial).write(register, value);
            return None;
        }
        if let Some(register) = within(port, POWER, POWER_PORTS) {
            return lock(&self.power).write(register, value).map(|PowerRequest::Off| Request::PowerOff);
        }
        match port {
            RTC => lock(&self.rtc).set_index(value),
            _ if port == RTC + 1 => lock(&self.rtc).write(value),
            I8042_COMMAND if self.i8042.write_command(value) => return Some(Request::Reset),
            DEBUG_PORT => lock(&self.debug).write(value),
            PVPANIC if self.pvpanic.write(value) => return Some(Request::Crash),
            _ => {}
        }
        None
    }

    /// A read from an address that is no RAM. `data` holds all ones where no device answers.
    pub(crate) fn read_memory(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        match in_ecam(address) {
            Some(offset) => lock(&self.pci).read_ecam(offset, data),
            None => lock(&self.pci).read_memory(address, data),
        }
    }

    /// A write to an address that is no RAM.
    pub(crate) fn write_memory(&self, address: u64, data: &[u8]) {
        match in_ecam(address) {
            Some(offset) => lock(&self.pci).write_ecam(offset, data),
            None => lock(&self.pci).write_memory(address, data),
        }
    }
}

/// The register of `port` in a device of `count` ports at `base`.
fn within(port: u16, base: u16, count: u16) -> Option<u8> {
    let register = port.checked_sub(base).filter(|register| *register < count)?;
    u8::try_from(register).ok()
}

fn in_ecam(address: u64) -> Option<u32> {
    let offset = address.checked_sub(ECAM).filter(|offset| *offset < ECAM_SIZE)?;
    u32::try_from(offset).ok()
}
