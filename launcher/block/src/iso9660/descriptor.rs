//! Volume descriptors (ECMA-119 §8).

use super::SECTOR;
use super::layout::{Layout, Names};
use super::record::both;

/// The sector where descriptors begin is 16; these are the places of fields in one.
const SYSTEM: std::ops::Range<usize> = 8..40;
const LABEL: std::ops::Range<usize> = 40..72;
const SECTORS: usize = 80;
const ESCAPES: usize = 88;
const SET_SIZE: usize = 120;
const TABLE: usize = 132;
const ROOT: usize = 156;
const TEXTS: std::ops::Range<usize> = 190..813;
const DATES: std::ops::Range<usize> = 813..881;
const STRUCTURE: usize = 881;

/// Names in UTF-16 (Joliet, level 3).
const JOLIET: &[u8; 3] = b"%/E";

/// The descriptor of the files with Rock Ridge names.
pub(super) fn primary(label: &str, layout: &Layout) -> Vec<u8> {
    let mut descriptor = volume(1, layout, Names::RockRidge);
    for field in [SYSTEM, LABEL, TEXTS] {
        descriptor[field].fill(b' ');
    }
    for (place, byte) in descriptor[LABEL].iter_mut().zip(label.bytes()) {
        *place = byte;
    }
    descriptor
}

/// The descriptor of the files with Joliet names.
pub(super) fn joliet(label: &str, layout: &Layout) -> Vec<u8> {
    let mut descriptor = volume(2, layout, Names::Joliet);
    descriptor[ESCAPES..ESCAPES + JOLIET.len()].copy_from_slice(JOLIET);
    for field in [SYSTEM, LABEL] {
        descriptor[field].chunks_exact_mut(2).for_each(|unit| unit.copy_from_slice(&[0, b' ']));
    }
    for (unit, value) in descriptor[LABEL].chunks_exact_mut(2).zip(label.encode_utf16()) {
        unit.copy_from_slice(&value.to_be_bytes());
    }
    descriptor
}

/// The end of the descriptors.
pub(super) fn terminator() -> Vec<u8> {
    descriptor(255)
}

fn descriptor(kind: u8) -> Vec<u8> {
    let mut descriptor = vec![0; SECTOR];
    descriptor[0] = kind;
    descriptor[1..7].copy_from_slice(b"CD001\x01");
    descriptor
}

fn volume(kind: u8, layout: &Layout, names: Names) -> Vec<u8> {
    let mut descriptor = descriptor(kind);
    let mut put = |at: usize, bytes: &[u8]| descriptor[at..at + bytes.len()].copy_from_slice(bytes);
    put(SECTORS, &both(layout.sectors));
    // One volume, its number, and the bytes of a sector.
    for (field, value) in [1_u16, 1, 2048].into_iter().enumerate() {
        put(SET_SIZE + field * 4, &[value.to_le_bytes(), value.to_be_bytes()].concat());
    }
    let (bytes, [little, big]) = layout.path_table(names);
    put(TABLE, &both(bytes));
    put(TABLE + 8, &little.to_le_bytes());
    put(TABLE + 16, &big.to_be_bytes());
    put(ROOT, &layout.root(names));
    put(STRUCTURE, &[1]);
    // No date is given: sixteen digits 0 and an offset of 0.
    for date in descriptor[DATES].chunks_exact_mut(17) {
        date[..16].fill(b'0');
    }
    descriptor
}
