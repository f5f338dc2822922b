//! The guest's memory: RAM below and above the hole of 32-bit devices, and the map that the guest is given of it.

use vm_memory::GuestRegionCollectionError;
use vm_memory::mmap::MmapRegionError;

use crate::layout::{ECAM, ECAM_SIZE, HIGH_MEMORY, HOLE, HOLE_END, LOW_MEMORY_END};
pub(crate) use crate::sys::ram::GuestMemory;
use crate::sys::ram::Ram;

/// The least that a machine is given: below it no kernel fits.
pub(crate) const LEAST: u64 = 32 << 20;

/// Why there is no memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// Less than a kernel needs, or no whole number of pages.
    #[error("{0} bytes of memory: expected at least 32 MiB, in whole pages of 4096 bytes")]
    Size(u64),
    /// The host has none to give.
    #[error("the guest's memory cannot be mapped")]
    Map(#[from] MmapRegionError),
    /// The host has no such pages, or not so many.
    #[error("the guest's memory of {bytes} bytes cannot be made of huge pages of {page} bytes: are as many free?")]
    HugePages {
        /// Its size.
        bytes: u64,
        /// Theirs.
        page: u64,
        /// The system's reason.
        #[source]
        source: MmapRegionError,
    },
    /// The pieces do not fit together.
    #[error("the guest's memory cannot be put together")]
    Collect(#[from] GuestRegionCollectionError),
}

/// What a range of the guest's addresses is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Memory that the guest may use.
    Ram,
    /// Anything that it must leave alone.
    Reserved,
}

/// An entry of the guest's memory map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MapEntry {
    pub(crate) start: u64,
    pub(crate) size: u64,
    pub(crate) kind: Kind,
}

/// Start and size of each piece of RAM for a guest of `bytes`.
pub(crate) fn ranges(bytes: u64) -> Vec<(u64, u64)> {
    let low = bytes.min(HOLE);
    let mut ranges = vec![(0, low)];
    if bytes > low {
        ranges.push((HOLE_END, bytes - low));
    }
    ranges
}

/// End of the RAM below the hole.
pub(crate) fn low_end(bytes: u64) -> u64 {
    bytes.min(HOLE)
}

/// Maps the RAM, without a page of it yet; of huge pages of `page` bytes the host keeps as many for it.
///
/// # Errors
/// When the size is unusable or the host has no room.
pub(crate) fn map(bytes: u64, page: Option<u64>) -> Result<GuestMemory, MemoryError> {
    if bytes < LEAST || !bytes.is_multiple_of(4096) {
        return Err(MemoryError::Size(bytes));
    }
    let map = |(start, size)| {
        let size = usize::try_from(size).map_err(|_| MemoryError::Size(bytes))?;
        let mapped = match page {
            None => Ram::map(start, size)?,
            Some(page) => {
                Ram::map_huge(start, size, page).map_err(|source| MemoryError::HugePages { bytes, page, source })?
            }
        };
        mapped.ok_or(MemoryError::Size(bytes))
    };
    let pieces = ranges(bytes).into_iter().map(map).collect::<Result<_, MemoryError>>()?;
    Ok(GuestMemory::from_regions(pieces)?)
}

/// The map that a kernel is given (e820 types of ACPI 6.5 §15).
pub(crate) fn memory_map(bytes: u64) -> Vec<MapEntry> {
    let entry = |start, end: u64, kind| MapEntry { start, size: end - start, kind };
    let mut map = vec![
        entry(0, LOW_MEMORY_END, Kind::Ram),
        entry(LOW_MEMORY_END, HIGH_MEMORY, Kind::Reserved),
        entry(HIGH_MEMORY, low_end(bytes), Kind::Ram),
        // Linux uses the configuration space only where the map reserves it.
        entry(ECAM, ECAM + ECAM_SIZE, Kind::Reserved),
    ];
    map.extend(ranges(bytes).get(1).map(|&(start, size)| MapEntry { start, size, kind: Kind::Ram }));
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_leaves_the_hole_of_devices_free() {
        assert_eq!(ranges(128 << 20), [(0, 128 << 20)]);
        assert_eq!(ranges(HOLE), [(0, HOLE)]);
        assert_eq!(ranges(5 << 30), [(0, HOLE), (HOLE_END, (5 << 30) - HOLE)]);
    }

    #[test]
    fn the_map_accounts_for_all_memory_once_and_in_order() {
        for bytes in [LEAST, 128 << 20, HOLE, HOLE + 4096, 5 << 30] {
            let map = memory_map(bytes);
            assert!(map.windows(2).all(|pair| pair[0].start + pair[0].size <= pair[1].start), "{map:x?}");
            let ram: u64 = map.iter().filter(|entry| entry.kind == Kind::Ram).map(|entry| entry.size).sum();
            assert_eq!(ram, bytes - (HIGH_MEMORY - LOW_MEMORY_END));
        }
    }

    #[test]
    fn memory_that_no_kernel_fits_into_is_refused() {
        for bytes in [0, 4096, LEAST - 4096, LEAST + 1] {
            assert!(matches!(map(bytes, None), Err(MemoryError::Size(size)) if size == bytes));
        }
    }
}
