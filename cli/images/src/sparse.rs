//! Sparse files in tar archives: where the pieces that are kept lie in the file.
//!
//! GNU tar has four ways to write it down: its own format, and versions 0.0, 0.1 and 1.0 in pax headers (GNU tar manual,
//! "Storing Sparse Files").

use std::io;

/// Pieces of one file; at 16 bytes each a bound on memory.
const MAX_EXTENTS: usize = 1 << 20;
/// Largest file that is taken out of an archive: ext4 holds no larger one.
const MAX_FILE_BYTES: u64 = 16 << 40;

/// A piece of a file that is kept in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// A sparse file's name, where it differs from its entry's, its size and its pieces.
#[derive(Debug)]
pub(super) struct Sparse {
    pub(super) name: Option<Vec<u8>>,
    pub(super) bytes: u64,
    pub(super) extents: Vec<Extent>,
}

/// What the pax header of a sparse file says.
#[derive(Debug, Default)]
pub(super) struct PaxKeys {
    major: Option<u64>,
    minor: Option<u64>,
    name: Option<Vec<u8>>,
    bytes: Option<u64>,
    offset: Option<u64>,
    extents: Vec<Extent>,
    has_map: bool,
}

/// The content of an entry, block by block.
pub(super) trait Blocks {
    fn block(&mut self) -> io::Result<[u8; 512]>;
}

impl PaxKeys {
    /// Takes one record; those of other subjects are ignored.
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let Some(key) = key.strip_prefix(b"GNU.sparse.") else { return Ok(()) };
        let parsed = || number(value).ok_or("has a sparse entry in pax format with a value that is no number");
        match key {
            b"major" => self.major = Some(parsed()?),
            b"minor" => self.minor = Some(parsed()?),
            b"name" => self.name = Some(value.to_owned()),
            b"realsize" | b"size" => self.bytes = Some(parsed()?),
            b"offset" => self.offset = Some(parsed()?),
            b"numbytes" => {
                let offset = self.offset.take().ok_or("has a sparse entry in pax format with a size and no offset")?;
                self.has_map = true;
                push(&mut self.extents, Extent { offset, bytes: parsed()? })?;
            }
            b"map" => {
                self.has_map = true;
                let mut numbers = value.split(|byte| *byte == b',').map(number);
                while let Some(offset) = numbers.next() {
                    let (Some(offset), Some(Some(bytes))) = (offset, numbers.next()) else {
                        return Err("has a sparse entry in pax format with a damaged map");
                    };
                    push(&mut self.extents, Extent { offset, bytes })?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The file, if the entry is a sparse one; version 1.0 has its map at the beginning of the content.
    pub(super) fn read(self, content: &mut impl Blocks) -> io::Result<Option<Sparse>> {
        let extents = match (self.major, self.minor) {
            (None, None) | (Some(0), _) if self.has_map => self.extents,
            (None, None) => return Ok(None),
            (Some(1), Some(0)) => map(content)?,
            _ => return Err(invalid("has a sparse entry in a pax format that is neither 0.0, 0.1 nor 1.0")),
        };
        let bytes = self.bytes.ok_or_else(|| invalid("has a sparse entry in pax format without its size"))?;
        Ok(Some(Sparse { name: self.name, bytes, extents }))
    }
}

/// Numbers of a line each, the count of pieces first, in whole blocks.
fn map(content: &mut impl Blocks) -> io::Result<Vec<Extent>> {
    let damaged = || invalid("has a sparse entry in pax format 1.0 with a damaged map");
    let (mut block, mut at) = (content.block()?, 0);
    let mut next = || {
        let mut digits = Vec::new();
        loop {
            if at == block.len() {
                (block, at) = (content.block()?, 0);
            }
            let byte = block.get(at).copied().unwrap_or_default();
            at += 1;
            match byte {
                b'\n' => return number(&digits).ok_or_else(damaged),
                b'0'..=b'9' if digits.len() < 20 => digits.push(byte),
                _ => return Err(damaged()),
            }
        }
    };
    let count = next()?;
    let mut extents = Vec::new();
    for _ in 0..count {
        let (offset, bytes) = (next()?, next()?);
        push(&mut extents, Extent { offset, bytes }).map_err(invalid)?;
    }
    Ok(extents)
}

/// Adds a piece; one without content only says where the file ends.
pub(super) fn push(extents: &mut Vec<Extent>, extent: Extent) -> Result<(), &'static str> {
    if extents.len() >= MAX_EXTENTS {
        return Err("has a sparse entry of more than 1048576 pieces");
    }
    if extent.bytes > 0 {
        extents.push(extent);
    }
    Ok(())
}

/// The pieces follow one another inside the file, and are all that the content holds.
pub(super) fn check(extents: &[Extent], bytes: u64, content: u64) -> Result<(), &'static str> {
    let mut end = 0;
    let mut sum = 0_u64;
    for extent in extents {
        let next = extent.offset.checked_add(extent.bytes).filter(|next| *next <= bytes && extent.offset >= end);
        end = next.ok_or("has a sparse entry whose pieces overlap or lie outside the file")?;
        sum = sum.saturating_add(extent.bytes);
    }
    if sum != content {
        return Err("has a sparse entry whose pieces are not what its content holds");
    }
    if bytes > MAX_FILE_BYTES { Err("has a sparse entry of more than 16 TiB") } else { Ok(()) }
}

/// A decimal number without sign.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.len() <= 20 && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
