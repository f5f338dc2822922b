//! Tests of the bus.

use super::state::PciState;
use super::{Function, HostBridge, Pci};
use crate::devices::golden;

/// A function of plain memory.
#[derive(Debug)]
struct Scratch([u32; 1024]);

impl Function for Scratch {
    fn read(&mut self, register: u16) -> u32 {
        self.0[usize::from(register)]
    }

    fn write(&mut self, register: u16, value: u32, mask: u32) {
        let old = &mut self.0[usize::from(register)];
        *old = *old & !mask | value & mask;
    }
}

fn bus() -> Pci {
    Pci::new(vec![Box::new(HostBridge), Box::new(Scratch([0; 1024]))])
}

fn data<const N: usize>(pci: &mut Pci, at: u8) -> [u8; N] {
    let mut data = [0xff; N];
    pci.read_data(at, &mut data);
    data
}

#[test]
fn mechanism_1_reads_any_width_at_any_byte() {
    let mut pci = bus();
    pci.set_address(1 << 31);
    assert_eq!(data::<4>(&mut pci, 0), 0x29c0_8086_u32.to_le_bytes());
    assert_eq!(data::<2>(&mut pci, 2), 0x29c0_u16.to_le_bytes());
    assert_eq!(data::<1>(&mut pci, 3), [0x29]);
    assert_eq!(data::<4>(&mut pci, 2), [0xc0, 0x29, 0xff, 0xff], "beyond the register there is nothing");
    pci.set_address(0);
    assert_eq!(data::<4>(&mut pci, 0), [0xff; 4], "without the enable bit");
}

#[test]
fn slots_functions_and_buses_that_are_empty_read_as_ones() {
    let mut pci = bus();
    for address in [2 << 11, 31 << 11, 1 << 8, 1 << 16, 255 << 16] {
        pci.set_address(1 << 31 | address);
        assert_eq!(data::<4>(&mut pci, 0), [0xff; 4], "{address:#x}");
        pci.write_data(0, &[1, 2, 3, 4]);
    }
}

#[test]
fn both_mechanisms_reach_the_same_registers() {
    let mut pci = bus();
    pci.set_address(1 << 31 | 1 << 11 | 0x40);
    pci.write_data(1, &[0xaa, 0xbb]);
    let mut read = [0; 4];
    pci.read_ecam(1 << 15 | 0x40, &mut read);
    assert_eq!(read, [0, 0xaa, 0xbb, 0]);
    pci.write_ecam(1 << 15 | 0xffc, &[1, 2, 3, 4, 5, 6, 7, 8]);
    let mut read = [0xff; 8];
    pci.read_ecam(1 << 15 | 0xffc, &mut read);
    assert_eq!(read, [1, 2, 3, 4, 0xff, 0xff, 0xff, 0xff]);
}

// spec: LAB-7
#[test]
fn no_access_of_any_place_and_size_panics() {
    let mut pci = bus();
    for offset in (0..1 << 20).step_by(1021) {
        for size in 0..=8 {
            pci.write_ecam(offset, &[0x5a; 8][..size]);
            pci.read_ecam(offset, &mut [0; 8][..size]);
        }
    }
    for at in 0..=u8::MAX {
        pci.set_address(1 << 31 | u32::from(at) << 11);
        pci.write_data(at, &[1; 8]);
        pci.read_data(at, &mut [0; 8]);
    }
}

// spec: LAB-6
#[test]
fn the_address_register_survives_a_snapshot() {
    let mut pci = bus();
    pci.set_address(0x8000_0840);
    let state: PciState = golden("pci", &pci.save());
    let mut restored = bus();
    restored.restore(&state);
    assert_eq!(restored.address(), 0x8000_0840);
}
