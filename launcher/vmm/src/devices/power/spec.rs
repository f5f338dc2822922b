//! Registers of ACPI 6.5 §4.8.3: offsets from the first port, and their bits.

/// PM1a event block, §4.8.3.1: status in two bytes, then enable in two.
pub(crate) const PM1_EVENT: u8 = 0;
/// PM1a control block, §4.8.3.2, two bytes.
pub(crate) const PM1_CONTROL: u8 = 4;
/// PM timer, §4.8.3.3, four bytes, read-only.
pub(crate) const PM_TIMER: u8 = 8;

/// PWRBTN_STS and PWRBTN_EN, tables 4.11 and 4.12.
pub(super) const POWER_BUTTON: u16 = 1 << 8;
/// Status bits that hold something here; writing one clears it.
pub(super) const STATUS_BITS: u16 = POWER_BUTTON;
/// SCI_EN, table 4.13: events are interrupts and not SMIs. Always on, since the FADT names no SMI command port.
pub(super) const SCI_ENABLE: u16 = 1 << 0;
/// SLP_TYPx, table 4.13, bits 10 to 12.
pub(super) const SLEEP_TYPE_SHIFT: u16 = 10;
pub(super) const SLEEP_TYPE_MASK: u16 = 0b111;
/// SLP_EN, table 4.13: written as one it enters the sleep state; it reads as zero.
pub(super) const SLEEP_ENABLE: u16 = 1 << 13;
/// Our value of SLP_TYP for S5; the DSDT's `_S5_` says it.
pub(crate) const S5_TYPE: u8 = 5;

/// Frequency of the PM timer, §4.8.3.3, and its width here: 32 bits, TMR_VAL_EXT.
pub(super) const TIMER_HERTZ: u128 = 3_579_545;
