//! ISO 9660 images with the names of Rock Ridge and of Joliet, made of files that fit into memory.
//!
//! Flow: files → [`tree::Tree`] (folders, unique names) → [`layout`] places everything → [`write`] writes it.
//! Guarantees: the same files give the same bytes; every name of a file system of Linux is read back as it was.
//!
//! Our own: it only writes, from memory, and the launcher links no more than that. Keys of a ConfigMap have up to 253
//! characters, which need Rock Ridge's continuation areas.

mod descriptor;
mod layout;
mod record;
mod tree;

use std::io::{self, Write};

use machine::MAX_FILES_BYTES;

use crate::content::Files;
use layout::Layout;
use tree::Tree;

/// Bytes of a sector, the unit of all places in an image.
const SECTOR: usize = 2048;
/// An image is a whole number of blocks of 4096 bytes: without the host's cache QEMU writes no other file on a disk with such
/// blocks.
const BLOCK_SECTORS: u32 = 2;

/// Writes an image with a label that holds the files.
///
/// # Errors
/// The writer's; a name that no file system has; an image of more than [`MAX_FILES_BYTES`].
pub(crate) fn write(image: &mut impl Write, label: &str, files: &Files) -> io::Result<()> {
    let tree = Tree::new(files)?;
    let layout = Layout::new(&tree);
    let bytes = u64::from(layout.sectors) * SECTOR as u64;
    if bytes > MAX_FILES_BYTES {
        return Err(io::Error::other(format!(
            "its image would have {bytes} bytes, at most {MAX_FILES_BYTES} are made"
        )));
    }
    let mut sectors = Sectors { image, written: 0 };
    sectors.write(&[0; 16 * SECTOR])?;
    sectors.write(&descriptor::primary(label, &layout))?;
    sectors.write(&descriptor::joliet(label, &layout))?;
    sectors.write(&descriptor::terminator())?;
    for table in layout.path_tables(&tree) {
        sectors.write(&table)?;
    }
    let (folders, continuation) = layout.folders(&tree);
    for folder in folders.iter().flatten() {
        sectors.write(folder)?;
    }
    sectors.write(&continuation)?;
    tree.files.iter().try_for_each(|file| sectors.write(file))?;
    let rest = bytes.saturating_sub(sectors.written);
    sectors.write(&vec![0; usize::try_from(rest).map_err(io::Error::other)?])
}

/// Writes parts, each filled up to whole sectors.
struct Sectors<'a, W> {
    image: &'a mut W,
    /// Bytes.
    written: u64,
}

impl<W: Write> Sectors<'_, W> {
    fn write(&mut self, part: &[u8]) -> io::Result<()> {
        let whole = part.len().next_multiple_of(SECTOR);
        self.image.write_all(part)?;
        self.image.write_all(&[0; SECTOR][..whole - part.len()])?;
        self.written += whole as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
