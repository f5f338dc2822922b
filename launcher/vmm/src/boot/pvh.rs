//! PVH: an ELF kernel begins at the address of its Xen note, with the address of a start-of-day structure in EBX
//! (Xen, docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h).

use linux_loader::loader::KernelLoader as _;
use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use vm_memory::{Bytes as _, GuestAddress};

use super::{BootError, Entry, Kernel, initrd, write_command_line};
use crate::layout::{COMMAND_LINE, COMMAND_LINE_MAX, HIGH_MEMORY, PVH_INFO, PVH_MEMORY_MAP, PVH_MODULES, RSDP};
use crate::memory::{GuestMemory, Kind, low_end, memory_map};

/// XEN_HVM_START_MAGIC_VALUE, XEN_HVM_MEMMAP_TYPE_RAM and _RESERVED; version 1 has the memory map.
const MAGIC: u32 = 0x336e_c578;
const RAM: u32 = 1;
const RESERVED: u32 = 2;
const VERSION: u32 = 1;

/// Loads kernel, initrd and start-of-day structure.
///
/// # Errors
/// As [`super::load`].
pub(super) fn load(memory: &GuestMemory, bytes: u64, kernel: &mut Kernel) -> Result<Entry, BootError> {
    let loaded =
        Elf::load(memory, None, &mut kernel.image, Some(GuestAddress(HIGH_MEMORY))).map_err(BootError::Load)?;
    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else { return Err(BootError::NoPvh) };
    let initrd = initrd::load(memory, kernel.initrd.as_mut(), loaded.kernel_end, low_end(bytes))?;
    write_command_line(memory, &kernel.command_line, COMMAND_LINE_MAX - 1)?;
    write_memory_map(memory, bytes)?;
    let mut info = hvm_start_info {
        magic: MAGIC,
        version: VERSION,
        cmdline_paddr: COMMAND_LINE,
        rsdp_paddr: RSDP,
        memmap_paddr: PVH_MEMORY_MAP,
        memmap_entries: u32::try_from(memory_map(bytes).len()).unwrap_or_default(),
        ..Default::default()
    };
    if let Some(placed) = initrd {
        let module = hvm_modlist_entry { paddr: placed.address, size: placed.size, ..Default::default() };
        memory.write_obj(module, GuestAddress(PVH_MODULES)).map_err(BootError::Write)?;
        (info.nr_modules, info.modlist_paddr) = (1, PVH_MODULES);
    }
    memory.write_obj(info, GuestAddress(PVH_INFO)).map_err(BootError::Write)?;
    Ok(Entry { rip: entry.0, rbx: PVH_INFO, rsi: 0 })
}

fn write_memory_map(memory: &GuestMemory, bytes: u64) -> Result<(), BootError> {
    let mut address = PVH_MEMORY_MAP;
    for entry in memory_map(bytes) {
        let type_ = if entry.kind == Kind::Ram { RAM } else { RESERVED };
        let written = hvm_memmap_table_entry { addr: entry.start, size: entry.size, type_, reserved: 0 };
        memory.write_obj(written, GuestAddress(address)).map_err(BootError::Write)?;
        address += size_of::<hvm_memmap_table_entry>() as u64;
    }
    Ok(())
}
