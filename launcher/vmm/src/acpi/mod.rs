//! ACPI tables (ACPI 6.5): where the guest's kernel finds processors, interrupt controllers, PCI and the power button.

mod dsdt;
mod fadt;
mod madt;

use acpi_tables::facs::FACS;
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, sdt::Sdt};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryError};

use crate::layout::{ECAM, RESET_VECTOR, RSDP, SMBIOS};
use crate::memory::GuestMemory;

const OEM: [u8; 6] = *b"TAPVIS";
const OEM_TABLE: [u8; 8] = *b"TAPVISOR";
const OEM_REVISION: u32 = 1;
/// mov al, 0xfe; out 0x64, al: resets the machine as the FADT says; then hlt for ever. With hardware-reduced ACPI Linux takes the
/// machine for one with EFI, asks that in vain for a reset, and last jumps to where a BIOS would begin.
const RESET: [u8; 7] = [0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd];
/// Tables begin at such addresses; the FACS must be at one of 64 (§5.2.10).
const ALIGNMENT: u64 = 64;

/// Why there are no tables.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcpiError {
    /// More processors than there is room for.
    #[error("the ACPI tables need {needed} bytes and there is room for {room}")]
    Room {
        /// Their size.
        needed: u64,
        /// What is there.
        room: u64,
    },
    /// They could not be written.
    #[error("the ACPI tables cannot be written to the guest's memory")]
    Write(#[source] GuestMemoryError),
}

/// Places tables one after the other.
struct Tables {
    bytes: Vec<u8>,
}

impl Tables {
    /// Adds a table and returns its address.
    fn add(&mut self, table: &dyn Aml) -> u64 {
        let start = (self.bytes.len() as u64).next_multiple_of(ALIGNMENT);
        self.bytes.resize(usize::try_from(start).unwrap_or_default(), 0);
        table.to_aml_bytes(&mut self.bytes);
        RSDP + start
    }
}

/// Writes all tables for a machine of processors with these APIC ids, the RSDP first, at its fixed place, and code that resets it.
///
/// # Errors
/// When they have no room.
pub(crate) fn write(memory: &GuestMemory, apic_ids: &[u8]) -> Result<(), AcpiError> {
    let bytes = build(apic_ids);
    let (needed, room) = (bytes.len() as u64, SMBIOS - RSDP);
    if needed > room {
        return Err(AcpiError::Room { needed, room });
    }
    memory.write_slice(&bytes, GuestAddress(RSDP)).map_err(AcpiError::Write)?;
    memory.write_slice(&RESET, GuestAddress(RESET_VECTOR)).map_err(AcpiError::Write)
}

/// The bytes from the RSDP on.
fn build(apic_ids: &[u8]) -> Vec<u8> {
    // The RSDP is written last, when the XSDT has an address.
    let mut tables = Tables { bytes: vec![0; Rsdp::len()] };
    let facs = tables.add(&FACS::new());
    let dsdt = tables.add(&dsdt::table(apic_ids.len()));
    let fadt = tables.add(&fadt::table(facs, dsdt));
    let madt = tables.add(&madt::table(apic_ids));
    let mut mcfg = MCFG::new(OEM, OEM_TABLE, OEM_REVISION);
    mcfg.add_ecam(ECAM, 0, 0, 0);
    let mcfg = tables.add(&mcfg);
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    [fadt, madt, mcfg].into_iter().for_each(|table| xsdt.add_entry(table));
    let xsdt = tables.add(&xsdt);
    let mut rsdp = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut rsdp);
    tables.bytes.iter_mut().zip(rsdp).for_each(|(to, from)| *to = from);
    tables.bytes
}

/// An empty table of a signature.
fn sdt(signature: [u8; 4], length: u32, revision: u8) -> Sdt {
    Sdt::new(signature, length, revision, OEM, OEM_TABLE, OEM_REVISION)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<const N: usize>(bytes: &[u8], address: u64) -> [u8; N] {
        let start = usize::try_from(address - RSDP).unwrap();
        bytes[start..start + N].try_into().unwrap()
    }

    fn table(bytes: &[u8], address: u64) -> &[u8] {
        let length = u32::from_le_bytes(at(bytes, address + 4)) as usize;
        let start = usize::try_from(address - RSDP).unwrap();
        &bytes[start..start + length]
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn every_table_is_reached_and_adds_up_to_zero() {
        for processors in [1, 2, 64] {
            let bytes = build(&Vec::from_iter(0..processors));
            assert_eq!(&bytes[..8], b"RSD PTR ");
            assert_eq!((sum(&bytes[..20]), sum(&bytes[..36])), (0, 0));
            let xsdt = table(&bytes, u64::from_le_bytes(at(&bytes, RSDP + 24)));
            assert_eq!(sum(xsdt), 0);
            let addresses: Vec<_> =
                xsdt[36..].chunks(8).map(|entry| u64::from_le_bytes(entry.try_into().unwrap())).collect();
            let signatures: Vec<_> = addresses.iter().map(|address| &table(&bytes, *address)[..4]).collect();
            assert_eq!(signatures, [b"FACP", b"APIC", b"MCFG"]);
            assert!(addresses.iter().all(|address| sum(table(&bytes, *address)) == 0));
            let fadt = table(&bytes, addresses[0]);
            let dsdt = table(&bytes, u64::from_le_bytes(fadt[140..148].try_into().unwrap()));
            assert_eq!((&dsdt[..4], sum(dsdt)), (&b"DSDT"[..], 0));
            assert!(bytes.len() as u64 <= SMBIOS - RSDP);
        }
    }
}
