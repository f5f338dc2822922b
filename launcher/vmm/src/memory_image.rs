//! The guest's RAM in a file: its pieces one after the other, with holes where all is zero.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use vm_memory::{Bytes as _, GuestMemoryBackend as _, GuestMemoryError, GuestMemoryRegion as _, MemoryRegionAddress};

use crate::memory::GuestMemory;

/// What is looked at, and copied, in one go. A page of the file or of the guest is no larger.
const CHUNK: usize = 64 << 10;

/// Why the memory cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    /// The file's length is no machine's with this memory.
    #[error("the file of the guest's memory has {found} bytes: expected {expected}")]
    Length {
        /// The guest's memory.
        expected: u64,
        /// The file's length.
        found: u64,
    },
    /// The file.
    #[error("the file of the guest's memory")]
    File(#[from] std::io::Error),
    /// The memory.
    #[error("the guest's memory")]
    Memory(#[from] GuestMemoryError),
}

/// Writes all RAM into an empty file.
///
/// # Errors
/// When the file takes no more.
pub(crate) fn write(memory: &GuestMemory, file: &File) -> Result<(), ImageError> {
    let mut bytes = vec![0; CHUNK];
    let mut place = 0;
    let end = length(memory);
    for region in memory.iter() {
        for offset in (0..region.len()).step_by(CHUNK) {
            let chunk = chunk(&mut bytes, region.len() - offset);
            region.read_slice(chunk, MemoryRegionAddress(offset))?;
            let after = place + chunk.len() as u64;
            // The last one is always there: by its end a file that was cut off is recognized.
            if after == end || chunk.iter().any(|byte| *byte != 0) {
                file.write_all_at(chunk, place)?;
            }
            place = after;
        }
    }
    Ok(())
}

/// Reads all RAM, which must be as it was mapped: what is zero is not touched.
///
/// # Errors
/// When the file is not as long as the memory, or cannot be read.
pub(crate) fn read(memory: &GuestMemory, file: &File) -> Result<(), ImageError> {
    let (expected, found) = (length(memory), file.metadata()?.len());
    if expected != found {
        return Err(ImageError::Length { expected, found });
    }
    let mut bytes = vec![0; CHUNK];
    let mut place = 0;
    for region in memory.iter() {
        for offset in (0..region.len()).step_by(CHUNK) {
            let chunk = chunk(&mut bytes, region.len() - offset);
            file.read_exact_at(chunk, place)?;
            if chunk.iter().any(|byte| *byte != 0) {
                region.write_slice(chunk, MemoryRegionAddress(offset))?;
            }
            place += chunk.len() as u64;
        }
    }
    Ok(())
}

fn chunk(bytes: &mut [u8], left: u64) -> &mut [u8] {
    let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    bytes.get_mut(..length).unwrap_or_default()
}

/// Bytes of RAM in all.
pub(crate) fn length(memory: &GuestMemory) -> u64 {
    memory.iter().map(vm_memory::GuestMemoryRegion::len).sum()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use vm_memory::GuestAddress;

    use super::*;
    use crate::memory::map;

    // spec: LAB-20
    #[test]
    fn memory_is_read_back_and_its_zeros_take_no_room() {
        let first = map(32 << 20, None).unwrap();
        for address in [0, 0x10_0003, (32 << 20) - 8] {
            first.write_obj(address + 1, GuestAddress(address)).unwrap();
        }
        let file = tempfile::tempfile().unwrap();
        write(&first, &file).unwrap();
        let data = file.metadata().unwrap();
        assert_eq!(data.len(), 32 << 20);
        assert!(data.blocks() * 512 < 1 << 20, "{} blocks", data.blocks());
        let second = map(32 << 20, None).unwrap();
        read(&second, &file).unwrap();
        for address in [0, 0x10_0003, (32 << 20) - 8] {
            assert_eq!(second.read_obj::<u64>(GuestAddress(address)).unwrap(), address + 1);
        }
    }

    // spec: LAB-20
    #[test]
    fn a_file_of_another_length_is_no_memory() {
        let memory = map(32 << 20, None).unwrap();
        let file = tempfile::tempfile().unwrap();
        write(&memory, &file).unwrap();
        file.set_len((32 << 20) - 4096).unwrap();
        let refused = read(&memory, &file).unwrap_err().to_string();
        assert_eq!(refused, "the file of the guest's memory has 33550336 bytes: expected 33554432");
    }
}
