//! Registers of hardware-reduced ACPI (ACPI 6.5 §4.8.3.7) and of the event device: offsets from the first port, and their bits.

/// Sleep control, §4.8.3.7.1, and sleep status, §4.8.3.7.2, a byte each.
pub(crate) const SLEEP_CONTROL: u8 = 0;
pub(crate) const SLEEP_STATUS: u8 = 1;
/// What the event device (§5.6.9) has to report, a byte of our own that its method in the DSDT reads: writing a bit clears it.
pub(crate) const EVENTS: u8 = 2;

/// Bits of [`EVENTS`]: the power button was pressed.
pub(crate) const POWER_BUTTON: u8 = 1 << 0;
/// SLP_TYPx, table 4.23, bits 2 to 4.
pub(super) const SLEEP_TYPE_SHIFT: u8 = 2;
pub(super) const SLEEP_TYPE_MASK: u8 = 0b111;
/// SLP_EN, table 4.23: written as one it enters the sleep state; it reads as zero.
pub(super) const SLEEP_ENABLE: u8 = 1 << 5;
/// Our value of SLP_TYP for S5; the DSDT's `_S5_` says it.
pub(crate) const S5_TYPE: u8 = 5;
