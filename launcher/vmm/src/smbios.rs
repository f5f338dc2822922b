//! SMBIOS tables (DMTF DSP0134 3.7): who the machine is, for guests that ask by DMI.

use vm_memory::{Bytes as _, GuestAddress, GuestMemoryError};

use crate::layout::{RESET_VECTOR, SMBIOS};
use crate::memory::GuestMemory;

/// What the guest reads of its maker and type, the same as of engine `qemu`.
const MANUFACTURER: &str = "Tapvisor";
const PRODUCT: &str = "VM";

/// §5.2.2: length of the 64-bit entry point, and the version of this specification that the tables follow.
const ENTRY_LENGTH: u8 = 24;
const VERSION: [u8; 3] = [3, 0, 0];
const ENTRY_REVISION: u8 = 1;
/// §7.1: types of structures.
const BIOS: u8 = 0;
const SYSTEM: u8 = 1;
const END: u8 = 127;
/// §7.1.1: BIOS characteristics are not supported; §7.1.2.2: this is a virtual machine.
const NO_CHARACTERISTICS: u64 = 1 << 3;
const VIRTUAL_MACHINE: u8 = 1 << 4;
/// §7.1: no embedded controller.
const NONE: u8 = 0xff;
/// §7.2.2: woken by the power switch.
const POWER_SWITCH: u8 = 6;

/// Who a machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// UUID in its 36-character form.
    pub uuid: String,
    /// Serial number of the system.
    pub serial_number: Option<String>,
}

/// Why there are no tables.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SmbiosError {
    /// No UUID.
    #[error("the machine's UUID is {0:?}: expected 32 hexadecimal digits in groups of 8, 4, 4, 4 and 12")]
    Uuid(String),
    /// A serial number that a string of SMBIOS cannot hold (§6.1.3).
    #[error("the machine's serial number holds a NUL or has more than {MOST_SERIAL} bytes")]
    Serial,
    /// They could not be written.
    #[error("the SMBIOS tables cannot be written to the guest's memory")]
    Write(#[source] GuestMemoryError),
}

/// Linux reads as many.
const MOST_SERIAL: usize = 255;

/// Writes entry point and structures.
///
/// # Errors
/// When the identity is malformed.
pub(crate) fn write(memory: &GuestMemory, identity: &Identity) -> Result<(), SmbiosError> {
    memory.write_slice(&build(identity)?, GuestAddress(SMBIOS)).map_err(SmbiosError::Write)
}

fn build(identity: &Identity) -> Result<Vec<u8>, SmbiosError> {
    let uuid = bytes_of_uuid(&identity.uuid).ok_or_else(|| SmbiosError::Uuid(identity.uuid.clone()))?;
    let serial = identity.serial_number.as_deref();
    if serial.is_some_and(|serial| serial.len() > MOST_SERIAL || serial.contains('\0')) {
        return Err(SmbiosError::Serial);
    }
    let mut structures = Vec::new();
    // Strings are numbered from one; start segment, date and size are those of no BIOS.
    let mut bios = vec![1, 2, 0, 0, 0, 0];
    bios.extend(NO_CHARACTERISTICS.to_le_bytes());
    bios.extend([0, VIRTUAL_MACHINE, 0, 0, NONE, NONE]);
    add(&mut structures, BIOS, 0, &bios, &[MANUFACTURER, env!("CARGO_PKG_VERSION")]);
    let mut system = vec![1, 2, 0, if serial.is_some() { 3 } else { 0 }];
    system.extend(uuid);
    system.extend([POWER_SWITCH, 0, 0]);
    let strings: Vec<_> = [MANUFACTURER, PRODUCT].into_iter().chain(serial).collect();
    add(&mut structures, SYSTEM, 1, &system, &strings);
    add(&mut structures, END, 2, &[], &[]);
    let mut bytes = entry_point(structures.len());
    bytes.extend(structures);
    Ok(bytes)
}

/// §6.1.2: type, length of the formatted part, handle; then its strings, each with a NUL, and one more.
fn add(to: &mut Vec<u8>, kind: u8, handle: u8, formatted: &[u8], strings: &[&str]) {
    to.extend([kind, u8::try_from(formatted.len() + 4).unwrap_or_default(), handle, 0]);
    to.extend(formatted);
    strings.iter().for_each(|string| to.extend(string.bytes().chain([0])));
    to.extend(if strings.is_empty() { &[0, 0][..] } else { &[0] });
}

/// §5.2.2; the structures follow it.
fn entry_point(size: usize) -> Vec<u8> {
    let mut entry = b"_SM3_\0".to_vec();
    entry.push(ENTRY_LENGTH);
    entry.extend(VERSION);
    entry.extend([ENTRY_REVISION, 0]);
    entry.extend(u32::try_from(size).unwrap_or_default().to_le_bytes());
    entry.extend((SMBIOS + u64::from(ENTRY_LENGTH)).to_le_bytes());
    let sum = entry.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
    if let Some(checksum) = entry.get_mut(5) {
        *checksum = sum.wrapping_neg();
    }
    entry
}

/// §7.2.1: the first three fields are little-endian.
fn bytes_of_uuid(text: &str) -> Option<[u8; 16]> {
    let groups: Vec<_> = text.split('-').collect();
    let lengths = [8, 4, 4, 4, 12];
    if groups.len() != lengths.len() || !groups.iter().zip(lengths).all(|(group, length)| group.len() == length) {
        return None;
    }
    let value = u128::from_str_radix(&groups.concat(), 16).ok().filter(|_| !text.contains('+'))?;
    let [a, b, c, d, e, f, g, h, rest @ ..] = value.to_be_bytes();
    let [i, j, k, l, m, n, o, p] = rest;
    Some([d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p])
}

const _: () = assert!(SMBIOS + 0x1000 <= RESET_VECTOR && SMBIOS.is_multiple_of(16));

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "00112233-4455-6677-8899-aabbccddeeff";

    fn identity(uuid: &str, serial: Option<&str>) -> Identity {
        Identity { uuid: uuid.to_owned(), serial_number: serial.map(str::to_owned) }
    }

    // spec: LAB-17
    #[test]
    fn the_tables_hold_uuid_and_serial_number_in_their_places() {
        let bytes = build(&identity(UUID, Some("s-1"))).unwrap();
        assert_eq!(&bytes[..5], b"_SM3_");
        assert_eq!(bytes[..24].iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)), 0);
        assert_eq!(u64::from_le_bytes(bytes[16..24].try_into().unwrap()), SMBIOS + 24);
        assert_eq!(u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize, bytes.len() - 24);
        let (mut at, mut kinds) = (24, Vec::new());
        while at < bytes.len() {
            let (kind, length) = (bytes[at], usize::from(bytes[at + 1]));
            if kind == SYSTEM {
                let uuid = &bytes[at + 8..at + 24];
                assert_eq!(
                    uuid,
                    [0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]
                );
                assert!(bytes[at + length..].starts_with(b"Tapvisor\0VM\0s-1\0\0"));
            }
            kinds.push(kind);
            let strings = bytes[at + length..].windows(2).position(|pair| pair == [0, 0]).unwrap();
            at += length + strings + 2;
        }
        assert_eq!(kinds, [BIOS, SYSTEM, END]);
    }

    #[test]
    fn an_identity_that_smbios_cannot_hold_is_refused() {
        for uuid in [
            "",
            "0",
            "+0112233-4455-6677-8899-aabbccddeeff",
            "0011223344556677-8899-aabb-ccdd-eeff",
            "zz112233-4455-6677-8899-aabbccddeeff",
        ] {
            assert!(matches!(build(&identity(uuid, None)), Err(SmbiosError::Uuid(_))), "{uuid}");
        }
        for serial in ["a\0b".to_owned(), "x".repeat(256)] {
            assert!(matches!(build(&identity(UUID, Some(&serial))), Err(SmbiosError::Serial)));
        }
    }
}
