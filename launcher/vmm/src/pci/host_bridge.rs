//! The host bridge in slot 0: that of a Q35, which firmware knows, with nothing behind its registers.

use super::Function;

/// Vendor Intel, device 82G33/Q35 (the id that firmware takes as "PCI Express with ECAM").
const ID: u32 = 0x29c0_8086;
/// Subsystem of QEMU's devices: SeaBIOS looks for it here before it asks for fw_cfg.
const SUBSYSTEM: u32 = 0x1100_1af4;
/// Class 06 (bridge), subclass 00 (host), revision 0 (PCI Code and ID Assignment 1.15 §1.7).
const CLASS: u32 = 0x0600_0000;
/// Registers of a function without PCI Express. Beyond them are ones: Linux looks for a capability there a dozen times otherwise.
const REGISTERS: u16 = 64;

/// It has no state: all its registers are read-only.
#[derive(Debug, Default)]
pub(crate) struct HostBridge;

impl Function for HostBridge {
    fn read(&mut self, register: u16) -> u32 {
        match register {
            0 => ID,
            2 => CLASS,
            11 => SUBSYSTEM,
            REGISTERS.. => u32::MAX,
            _ => 0,
        }
    }

    fn write(&mut self, _: u16, _: u32, _: u32) {}
}
