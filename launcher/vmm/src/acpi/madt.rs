//! MADT (ACPI 6.5 §5.2.12): processors and interrupt controllers.

use acpi_tables::sdt::Sdt;

use super::sdt;
use crate::layout::{EVENT_INTERRUPT, IO_APIC, LOCAL_APIC};

/// PCAT_COMPAT, table 5.20: there is a pair of 8259s as well.
const PC_COMPATIBLE: u32 = 1;
/// Flags of an interrupt, table 5.26: active high and level-triggered.
const HIGH_LEVEL: u16 = 0b1101;

/// The table.
pub(super) fn table(apic_ids: &[u8]) -> Sdt {
    let mut madt = sdt(*b"APIC", 44, 5);
    madt.write_u32(36, LOCAL_APIC);
    madt.write_u32(40, PC_COMPATIBLE);
    for (processor, id) in (0_u8..).zip(apic_ids) {
        // Processor Local APIC, §5.2.12.2: type 0, enabled.
        madt.append_slice(&[0, 8, processor, *id, 1, 0, 0, 0]);
    }
    // I/O APIC, §5.2.12.3: type 1; it has id 0 in KVM.
    let mut io_apic = vec![1, 12, 0, 0];
    io_apic.extend(IO_APIC.to_le_bytes());
    io_apic.extend(0_u32.to_le_bytes());
    madt.append_slice(&io_apic);
    // Interrupt Source Override, §5.2.12.5: type 2. KVM puts the PIT's interrupt 0 on pin 2.
    madt.append_slice(&[2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
    let [low, high] = HIGH_LEVEL.to_le_bytes();
    madt.append_slice(&[2, 10, 0, EVENT_INTERRUPT, EVENT_INTERRUPT, 0, 0, 0, low, high]);
    // Local APIC NMI, §5.2.12.7: type 4, all processors, LINT1.
    madt.append_slice(&[4, 6, 0xff, 0, 0, 1]);
    madt
}
