//! FADT (ACPI 6.5 §5.2.9): the fixed hardware, and how the machine is reset.

use acpi_tables::fadt::{FADT, FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};

use super::{OEM, OEM_REVISION, OEM_TABLE};
use crate::devices::{PM_TIMER, PM1_CONTROL, PM1_EVENT, RTC_CENTURY};
use crate::layout::{I8042_COMMAND, POWER, SCI};

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
        // WBINVD works; C1 exists; the timer has 32 bits. Without PWR_BUTTON the button is in the PM1 registers.
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless);
    let port = |register: u8| u32::from(POWER + u16::from(register));
    let block =
        |register, bits| GAS::new(AddressSpace::SystemIo, bits, 0, AccessSize::Undefined, port(register).into());
    fadt.sci_int = u16::from(SCI).into();
    fadt.pm1a_evt_blk = port(PM1_EVENT).into();
    fadt.pm1a_cnt_blk = port(PM1_CONTROL).into();
    fadt.pm_tmr_blk = port(PM_TIMER).into();
    (fadt.pm1_evt_len, fadt.pm1_cnt_len, fadt.pm_tmr_len) = (4, 2, 4);
    fadt.x_pm1a_evt_blk = block(PM1_EVENT, 32);
    fadt.x_pm1a_cnt_blk = block(PM1_CONTROL, 16);
    fadt.x_pm_tmr_blk = block(PM_TIMER, 32);
    fadt.century = RTC_CENTURY;
    fadt.iapc_boot_arch = (LEGACY_DEVICES | NO_VGA | NO_ASPM).into();
    fadt.reset_reg = GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, I8042_COMMAND.into());
    fadt.reset_value = RESET;
    // C2 and C3 do not exist (§5.2.9: latencies above 100 and 1000).
    (fadt.p_lvl2_lat, fadt.p_lvl3_lat) = (101.into(), 1001.into());
    fadt.finalize()
}
