//! A piece of the guest's RAM whose host addresses begin at a huge page's boundary: KVM maps huge pages only where guest and host
//! addresses agree below their size.
#![expect(unsafe_code, reason = "vm-memory chooses no addresses, and no crate advises huge pages by a safe call")]

use vm_memory::bitmap::BS;
use vm_memory::mmap::{MmapRegion, MmapRegionError};
use vm_memory::{
    GuestAddress, GuestMemoryBackend as _, GuestMemoryError, GuestMemoryRegion, GuestMemoryRegionBytes,
    GuestRegionCollection, GuestRegionMmap, GuestUsize, MemoryRegionAddress, VolatileSlice,
};

/// What x86 maps by one entry of its second table level.
const HUGE_PAGE: usize = 2 << 20;

/// RAM of the guest, mapped into this process. Clones share it.
pub(crate) type GuestMemory = GuestRegionCollection<Ram>;

/// A mapped piece of RAM.
#[derive(Debug)]
pub(crate) struct Ram {
    inside: GuestRegionMmap<()>,
    /// Owns the mapping where `inside` is a part of it.
    _mapping: Option<MmapRegion<()>>,
}

impl Ram {
    /// Maps `size` bytes for `start` in the guest, without a page of it yet. `None` where `start` leaves no room for it.
    ///
    /// # Errors
    /// When the host has none to give.
    pub(crate) fn map(start: u64, size: usize) -> Result<Option<Self>, MmapRegionError> {
        // The hole is at whole huge pages, so a boundary of the host is one of the guest.
        let mapping = MmapRegion::<()>::new(size.saturating_add(HUGE_PAGE))?;
        let address = mapping.as_ptr();
        let skipped = address.addr().wrapping_neg() % HUGE_PAGE;
        // SAFETY: `skipped` is less than HUGE_PAGE, by which the mapping is larger than `size`.
        let address = unsafe { address.add(skipped) };
        // SAFETY: the range is mapped and in use by this value alone. Advice changes no content; a kernel without huge pages
        // refuses it, and small pages serve then.
        let _ = unsafe { libc::madvise(address.cast(), size, libc::MADV_HUGEPAGE) };
        // SAFETY: the range lies in `mapping`, which this value owns and drops after `inside`; no region is given out of
        // either.
        let inside = unsafe { MmapRegion::build_raw(address, size, mapping.prot(), mapping.flags()) }?;
        Ok(GuestRegionMmap::new(inside, GuestAddress(start)).map(|inside| Self { inside, _mapping: Some(mapping) }))
    }

    /// The same of huge pages of `page` bytes from the host's pool, where they begin at their own boundaries, so that all of the
    /// guest's accesses find one or the host refuses here.
    ///
    /// # Errors
    /// When the host has no pages of this size, or not as many free.
    pub(crate) fn map_huge(start: u64, size: usize, page: u64) -> Result<Option<Self>, MmapRegionError> {
        // MAP_HUGE_SHIFT: above it are six bits for the size's logarithm.
        let of_size = page.checked_ilog2().map_or(0, u32::cast_signed) << libc::MAP_HUGE_SHIFT;
        let flags = libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_HUGETLB | of_size;
        let inside = MmapRegion::<()>::build(None, size, libc::PROT_READ | libc::PROT_WRITE, flags)?;
        Ok(GuestRegionMmap::new(inside, GuestAddress(start)).map(|inside| Self { inside, _mapping: None }))
    }

    /// Where it is in this process.
    pub(crate) fn host_address(&self) -> u64 {
        self.inside.as_ptr().addr() as u64
    }
}

/// Gives whole pages of the guest's memory back to the host; they are zero when they are touched again.
///
/// # Errors
/// When the range is not the guest's, or not of whole pages.
pub(crate) fn discard(memory: &GuestMemory, start: GuestAddress, size: usize) -> Result<(), GuestMemoryError> {
    let range = memory.get_slice(start, size)?;
    // SAFETY: `range` lies in the guest's memory, a private mapping without a file, for the guest's use alone: what this process
    // reads and writes there it does by volatile accesses, so that content may change at any time.
    let done = unsafe { libc::madvise(range.ptr_guard_mut().as_ptr().cast(), range.len(), libc::MADV_DONTNEED) };
    if done == 0 { Ok(()) } else { Err(GuestMemoryError::IOError(std::io::Error::last_os_error())) }
}

impl GuestMemoryRegion for Ram {
    type B = ();

    fn len(&self) -> GuestUsize {
        self.inside.len()
    }

    fn start_addr(&self) -> GuestAddress {
        self.inside.start_addr()
    }

    fn bitmap(&self) -> BS<'_, ()> {
        self.inside.bitmap()
    }

    fn get_host_address(&self, address: MemoryRegionAddress) -> Result<*mut u8, GuestMemoryError> {
        self.inside.get_host_address(address)
    }

    fn get_slice(
        &self,
        offset: MemoryRegionAddress,
        count: usize,
    ) -> Result<VolatileSlice<'_, BS<'_, ()>>, GuestMemoryError> {
        self.inside.get_slice(offset, count)
    }
}

impl GuestMemoryRegionBytes for Ram {}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes as _;

    use super::*;

    // spec: LAB-16
    #[test]
    fn ram_begins_at_a_huge_page_and_all_of_it_is_there() {
        for size in [4096, HUGE_PAGE, 3 * HUGE_PAGE + 4096] {
            let ram = Ram::map(1 << 32, size).unwrap().unwrap();
            assert_eq!(ram.host_address() % HUGE_PAGE as u64, 0);
            assert_eq!((ram.start_addr(), ram.len()), (GuestAddress(1 << 32), size as u64));
            let last = MemoryRegionAddress(size as u64 - 8);
            ram.write_obj(7_u64, last).unwrap();
            assert_eq!(ram.read_obj::<u64>(last).unwrap(), 7);
            assert!(ram.write_obj(7_u64, MemoryRegionAddress(size as u64)).is_err());
        }
    }

    // spec: LAB-36
    #[test]
    fn huge_pages_of_a_size_that_no_host_has_are_refused() {
        assert!(Ram::map_huge(0, 4 << 20, 12345).is_err());
        assert!(Ram::map_huge(0, 4 << 20, 0).is_err());
    }
}
