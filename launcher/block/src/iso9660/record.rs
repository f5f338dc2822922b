//! Records of folders (ECMA-119 §9.1) and the Rock Ridge entries in them (IEEE P1282, SUSP 1.12).

use super::SECTOR;

/// A file's first sector and its bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extent {
    pub(super) sector: u32,
    pub(super) bytes: u32,
}

/// Bytes of a record before the identifier.
const FIXED: usize = 33;
const LONGEST: usize = 255;
/// 1980-01-01: nothing depends on the day an image is made on.
const DATE: [u8; 7] = [80, 1, 1, 0, 0, 0, 0];
const FOLDER_FLAG: u8 = 2;
const MODES: [u32; 2] = [0o100_444, 0o40_555];
/// Bytes of a name in one entry.
const NAME_PART: usize = 200;

/// A record for a file or a folder; `system_use` is shorter than a record.
pub(super) fn record(identifier: &[u8], is_folder: bool, extent: Extent, system_use: &[u8]) -> Vec<u8> {
    let mut record = vec![0, 0];
    record.extend(both(extent.sector));
    record.extend(both(extent.bytes));
    record.extend(DATE);
    record.extend([if is_folder { FOLDER_FLAG } else { 0 }, 0, 0, 1, 0, 0, 1]);
    record.push(byte(identifier.len()));
    record.extend(identifier);
    record.resize(record.len().next_multiple_of(2), 0);
    record.extend(system_use);
    record.resize(record.len().next_multiple_of(2), 0);
    record[0] = byte(record.len());
    record
}

/// Appends a record, which does not cross a sector's end.
pub(super) fn append(folder: &mut Vec<u8>, record: &[u8]) {
    if folder.len() % SECTOR + record.len() > SECTOR {
        folder.resize(folder.len().next_multiple_of(SECTOR), 0);
    }
    folder.extend(record);
}

/// Rock Ridge's entries in the root's record of itself.
pub(super) fn of_root() -> Vec<u8> {
    let mut entries = b"SP\x07\x01\xbe\xef\0".to_vec();
    entries.extend(attributes(true));
    let (identifier, description) = (b"RRIP_1991A", b"THE ROCK RIDGE INTERCHANGE PROTOCOL");
    let length = 8 + identifier.len() + description.len();
    entries.extend([b'E', b'R', byte(length), 1, byte(identifier.len()), byte(description.len()), 0, 1]);
    entries.extend(identifier);
    entries.extend(description);
    entries
}

/// Rock Ridge's entry with mode, links and owner.
pub(super) fn attributes(is_folder: bool) -> Vec<u8> {
    let mut entry = vec![b'P', b'X', 36, 1];
    for value in [MODES[usize::from(is_folder)], 1, 0, 0] {
        entry.extend(both(value));
    }
    entry
}

/// Rock Ridge's entries for a child whose identifier has that many bytes. A name that does not fit into the record goes
/// into the continuation area, which begins at `area`.
pub(super) fn of_child(
    name: &str,
    is_folder: bool,
    identifier: usize,
    area: u32,
    continuation: &mut Vec<u8>,
) -> Vec<u8> {
    let mut entries = attributes(is_folder);
    let names = names(name);
    if (FIXED + identifier).next_multiple_of(2) + entries.len() + names.len() < LONGEST {
        entries.extend(names);
        return entries;
    }
    append(continuation, &names);
    let at = continuation.len() - names.len();
    entries.extend([b'C', b'E', 28, 1]);
    for value in [area + sectors(at - at % SECTOR), count(at % SECTOR), count(names.len())] {
        entries.extend(both(value));
    }
    entries
}

fn names(name: &str) -> Vec<u8> {
    let mut parts = name.as_bytes().chunks(NAME_PART).peekable();
    let mut entries = Vec::new();
    while let Some(part) = parts.next() {
        let continues = u8::from(parts.peek().is_some());
        entries.extend([b'N', b'M', byte(part.len() + 5), 1, continues]);
        entries.extend(part);
    }
    entries
}

/// A number in both byte orders.
pub(super) fn both(value: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&value.to_le_bytes());
    bytes[4..].copy_from_slice(&value.to_be_bytes());
    bytes
}

/// Whole sectors for so many bytes.
pub(super) fn sectors(bytes: usize) -> u32 {
    count(bytes.div_ceil(SECTOR))
}

/// A number that the sizes of what is read keep small; one that is not makes an image that is refused for its size.
pub(super) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A length that the format keeps below 256.
pub(super) fn byte(length: usize) -> u8 {
    u8::try_from(length).unwrap_or(u8::MAX)
}
