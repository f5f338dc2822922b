//! PCI bus 0: configuration space by mechanism 1 and by ECAM, and the host bridge.
//!
//! A function answers aligned 32-bit registers; this module makes any access of the guest out of those.

mod host_bridge;
pub(crate) mod state;
#[cfg(test)]
mod tests;

use std::fmt::Debug;

pub(crate) use host_bridge::HostBridge;

/// Slots of a bus (PCI 3.0 §3.2.2.3.1: five bits).
const SLOTS: u32 = 32;
/// Enable bit of mechanism 1's address (PCI 3.0 §3.2.2.3.2).
const ENABLE: u32 = 1 << 31;
/// What a register of no function reads as.
const NOTHING: u32 = u32::MAX;

/// A function's configuration space. `register` is the number of a 32-bit register, 0 to 1023.
pub(crate) trait Function: Debug + Send {
    /// Reads a register; in a window to device registers that has effects.
    fn read(&mut self, register: u16) -> u32;

    /// Writes the bytes of a register that `mask` has ones for.
    fn write(&mut self, register: u16, value: u32, mask: u32);

    /// Where its registers are in memory and how many bytes, while it answers there.
    fn window(&self) -> Option<(u64, u64)> {
        None
    }

    /// Reads from an offset of the window. `data` is all ones already.
    fn read_window(&mut self, _offset: u64, _data: &mut [u8]) {}

    /// Writes to an offset of the window.
    fn write_window(&mut self, _offset: u64, _data: &[u8]) {}
}

/// A place in configuration space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    slot: u32,
    function: u32,
    register: u16,
}

/// The bus.
#[derive(Debug)]
pub(crate) struct Pci {
    address: u32,
    functions: Vec<Box<dyn Function>>,
}

impl Pci {
    /// A bus with these functions in slots 0, 1, and so on; beyond 32 they cannot be reached.
    pub(crate) fn new(functions: Vec<Box<dyn Function>>) -> Self {
        Self { address: 0, functions }
    }

    /// The address register of mechanism 1.
    pub(crate) fn address(&self) -> u32 {
        self.address
    }

    /// Writes it.
    pub(crate) fn set_address(&mut self, address: u32) {
        self.address = address;
    }

    /// Reads from byte `at` of the data register, 0 to 3. `data` is all ones already.
    pub(crate) fn read_data(&mut self, at: u8, data: &mut [u8]) {
        if let Some(place) = self.addressed() {
            self.read_bytes(place, usize::from(at), data);
        }
    }

    /// Writes to byte `at` of the data register, 0 to 3.
    pub(crate) fn write_data(&mut self, at: u8, data: &[u8]) {
        if let Some(place) = self.addressed() {
            self.write_bytes(place, usize::from(at), data);
        }
    }

    /// Reads from an offset of the configuration space of bus 0. `data` is all ones already.
    pub(crate) fn read_ecam(&mut self, offset: u32, data: &mut [u8]) {
        self.read_bytes(ecam(offset), offset as usize & 3, data);
    }

    /// Writes to an offset of the configuration space of bus 0.
    pub(crate) fn write_ecam(&mut self, offset: u32, data: &[u8]) {
        self.write_bytes(ecam(offset), offset as usize & 3, data);
    }

    /// Reads from an address in memory. `data` is all ones already.
    pub(crate) fn read_memory(&mut self, address: u64, data: &mut [u8]) {
        if let Some((function, offset)) = self.at(address) {
            function.read_window(offset, data);
        }
    }

    /// Writes to an address in memory.
    pub(crate) fn write_memory(&mut self, address: u64, data: &[u8]) {
        if let Some((function, offset)) = self.at(address) {
            function.write_window(offset, data);
        }
    }

    fn at(&mut self, address: u64) -> Option<(&mut (dyn Function + 'static), u64)> {
        self.functions.iter_mut().find_map(|function| {
            let (start, size) = function.window()?;
            let offset = address.checked_sub(start).filter(|offset| *offset < size)?;
            Some((&mut **function, offset))
        })
    }

    /// What the address register points at: bus 0 only, and 256 bytes of a function.
    fn addressed(&self) -> Option<Place> {
        let bus = self.address >> 16 & 0xff;
        let place = Place {
            slot: self.address >> 11 & 0x1f,
            function: self.address >> 8 & 0x7,
            register: (self.address >> 2 & 0x3f) as u16,
        };
        (self.address & ENABLE != 0 && bus == 0).then_some(place)
    }

    fn register(&mut self, place: Place) -> u32 {
        let function =
            self.functions.get_mut(place.slot as usize).filter(|_| place.function == 0 && place.slot < SLOTS);
        function.map_or(NOTHING, |function| function.read(place.register))
    }

    /// An access that reaches over the end of its register reads ones there: no processor makes one.
    fn read_bytes(&mut self, place: Place, at: usize, data: &mut [u8]) {
        let bytes = self.register(place).to_le_bytes();
        data.iter_mut().zip(bytes.iter().skip(at)).for_each(|(to, from)| *to = *from);
    }

    fn write_bytes(&mut self, place: Place, at: usize, data: &[u8]) {
        let (mut value, mut mask) = ([0; 4], [0; 4]);
        for ((byte, covered), from) in value.iter_mut().zip(&mut mask).skip(at).zip(data) {
            (*byte, *covered) = (*from, 0xff);
        }
        let function = self.functions.get_mut(place.slot as usize);
        if let Some(function) = function.filter(|_| place.function == 0 && place.slot < SLOTS) {
            function.write(place.register, u32::from_le_bytes(value), u32::from_le_bytes(mask));
        }
    }
}

/// PCI Express 6.0 §7.2.2, table 7-1: bus in bits 20 to 27, device in 15 to 19, function in 12 to 14, register below.
fn ecam(offset: u32) -> Place {
    Place { slot: offset >> 15 & 0x1f, function: offset >> 12 & 0x7, register: (offset >> 2 & 0x3ff) as u16 }
}
