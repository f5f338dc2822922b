//! Registers of the MC146818 (Motorola data sheet, "Address map" and "Registers") as a PC has it.

pub(super) const SECONDS: u8 = 0x00;
pub(super) const MINUTES: u8 = 0x02;
pub(super) const HOURS: u8 = 0x04;
pub(super) const WEEKDAY: u8 = 0x06;
pub(super) const DAY: u8 = 0x07;
pub(super) const MONTH: u8 = 0x08;
pub(super) const YEAR: u8 = 0x09;
pub(super) const STATUS_A: u8 = 0x0a;
pub(super) const STATUS_B: u8 = 0x0b;
pub(super) const STATUS_C: u8 = 0x0c;
pub(super) const STATUS_D: u8 = 0x0d;
/// Century in BCD, where the FADT's `century` says it is.
pub(crate) const CENTURY: u8 = 0x32;

/// Register A: 32.768 kHz time base, no periodic interrupt, no update in progress.
pub(super) const A_TIME_BASE: u8 = 0x20;
/// Register B: hours from 0 to 23; values are BCD.
pub(super) const B_24_HOURS: u8 = 0x02;
/// Register D: the memory is valid.
pub(super) const D_VALID: u8 = 0x80;

/// Registers of the memory; bit 7 of the index is the gate of NMIs.
pub(super) const INDEX_MASK: u8 = 0x7f;
pub(super) const REGISTERS: usize = 128;
