//! FADT (ACPI 6.5 §5.2.9): hardware-reduced ACPI, and how the machine is reset.
//!
//! Hardware-reduced, because with the fixed hardware Linux takes both 8259s and the timer of a PC into use, and by 400 accesses of
//! the I/O APIC looks for where they are connected.

use acpi_tables::fadt::{FADT, FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};

use super::{OEM, OEM_REVISION, OEM_TABLE};
use crate::devices::{RTC_CENTURY, SLEEP_CONTROL, SLEEP_STATUS};
use crate::layout::{EVENT_INTERRUPT, I8042_COMMAND, POWER};

/// IAPC_BOOT_ARCH, table 5.11: no VGA, no ASPM control. Legacy devices are there (bit 0); an 8042 is not announced, since
/// of it there is only the reset line.
const LEGACY_DEVICES: u16 = 1 << 0;
const NO_VGA: u16 = 1 << 2;
const NO_ASPM: u16 = 1 << 4;
/// What the 8042's command port takes for a reset.
const RESET: u8 = 0xfe;

/// The table. The RTC is there: the flag that says otherwise is not set.
pub(super) fn table(facs: u64, dsdt: u64) -> FADT {
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .firmware_ctrl_64(facs)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        // WBINVD works. With both button flags a button is a device of the DSDT, or there is none.
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless)
        .flag(Flags::HwReducedAcpi);
    let byte = |port: u16| GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, port.into());
    // Without an SCI; but Linux sets up the interrupt of this number as the MADT says, and one of number 0 otherwise.
    fadt.sci_int = u16::from(EVENT_INTERRUPT).into();
    fadt.sleep_control_reg = byte(POWER + u16::from(SLEEP_CONTROL));
    fadt.sleep_status_reg = byte(POWER + u16::from(SLEEP_STATUS));
    fadt.century = RTC_CENTURY;
    fadt.iapc_boot_arch = (LEGACY_DEVICES | NO_VGA | NO_ASPM).into();
    fadt.reset_reg = byte(I8042_COMMAND);
    fadt.reset_value = RESET;
    fadt.finalize()
}
