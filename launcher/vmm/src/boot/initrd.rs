//! The initrd: as high in the memory below the hole as the kernel allows, out of the way of a kernel that unpacks itself.

use std::fs::File;
use std::io::Seek as _;

use vm_memory::{Bytes as _, GuestAddress};

use super::BootError;
use crate::memory::GuestMemory;

/// Where the initrd is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) address: u64,
    pub(super) size: u64,
}

/// Copies it to below `end` and above `kernel_end`.
///
/// # Errors
/// When it cannot be read or has no room.
pub(super) fn load(
    memory: &GuestMemory,
    file: Option<&mut File>,
    kernel_end: u64,
    end: u64,
) -> Result<Option<Placed>, BootError> {
    let Some(file) = file else { return Ok(None) };
    let read = |source| BootError::Read { what: "initrd", source };
    file.rewind().map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    let room = BootError::InitrdRoom { size, end, kernel_end };
    let Some(address) = place(size, kernel_end, end) else { return Err(room) };
    let Ok(count) = usize::try_from(size) else { return Err(room) };
    memory.read_exact_volatile_from(GuestAddress(address), file, count).map_err(BootError::Write)?;
    Ok(Some(Placed { address, size }))
}

/// The highest page that it can begin at.
fn place(size: u64, kernel_end: u64, end: u64) -> Option<u64> {
    let address = end.checked_sub(size)? & !0xfff;
    (address >= kernel_end).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_initrd_begins_at_a_page_between_kernel_and_end() {
        assert_eq!(place(0x1001, 0x10_0000, 0x80_0000), Some(0x7f_e000));
        assert_eq!(place(0x70_0000, 0x10_0000, 0x80_0000), Some(0x10_0000));
        assert_eq!(place(0x70_0001, 0x10_0000, 0x80_0000), None);
        assert_eq!(place(u64::MAX, 0, 0x80_0000), None);
    }
}
