//! The Linux/x86 boot protocol, by the 32-bit entry (Linux, Documentation/arch/x86/boot.rst, "32-bit Boot Protocol"):
//! ESI holds the address of `struct boot_params`, flat segments, no paging, no interrupts.

use linux_loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::KernelLoader as _;
use linux_loader::loader::bzimage::BzImage;
use vm_memory::{Bytes as _, GuestAddress};

use super::{BootError, Entry, Kernel, initrd, write_command_line};
use crate::layout::{BOOT_PARAMS, COMMAND_LINE, COMMAND_LINE_MAX, HIGH_MEMORY, RSDP};
use crate::memory::{GuestMemory, Kind, low_end, memory_map};

/// `acpi_rsdp_addr` and 64-bit initrd fields are there from 2.14; 2.12 has what this loader needs.
const LEAST_PROTOCOL: u16 = 0x020c;
/// type_of_loader: undefined.
const LOADER: u8 = 0xff;
/// Types of `struct boot_e820_entry`.
const RAM: u32 = 1;
const RESERVED: u32 = 2;

/// Loads kernel, initrd and boot parameters.
///
/// # Errors
/// As [`super::load`].
pub(super) fn load(memory: &GuestMemory, bytes: u64, kernel: &mut Kernel) -> Result<Entry, BootError> {
    let loaded =
        BzImage::load(memory, None, &mut kernel.image, Some(GuestAddress(HIGH_MEMORY))).map_err(BootError::Load)?;
    let mut header = loaded.setup_header.unwrap_or_default();
    let [minor, major] = header.version.to_le_bytes();
    if header.version < LEAST_PROTOCOL {
        return Err(BootError::OldProtocol { major, minor });
    }
    // The kernel moves itself to its preferred address and needs `init_size` from there until it is unpacked.
    let unpacked_end = header.pref_address.saturating_add(header.init_size.into());
    let initrd_end = low_end(bytes).min(u64::from(header.initrd_addr_max).saturating_add(1));
    let initrd = initrd::load(memory, kernel.initrd.as_mut(), loaded.kernel_end.max(unpacked_end), initrd_end)?
        .unwrap_or_default();
    let most = usize::try_from(header.cmdline_size).unwrap_or(COMMAND_LINE_MAX);
    write_command_line(memory, &kernel.command_line, most)?;
    header.type_of_loader = LOADER;
    header.cmd_line_ptr = as_u32(COMMAND_LINE);
    header.ramdisk_image = as_u32(initrd.address);
    header.ramdisk_size = as_u32(initrd.size);
    memory.write_obj(parameters(header, bytes), GuestAddress(BOOT_PARAMS)).map_err(BootError::Write)?;
    Ok(Entry { rip: loaded.kernel_load.0, rbx: 0, rsi: BOOT_PARAMS })
}

fn parameters(header: setup_header, bytes: u64) -> boot_params {
    let mut parameters = boot_params { hdr: header, acpi_rsdp_addr: RSDP, ..Default::default() };
    let map = memory_map(bytes);
    let mut table = parameters.e820_table;
    for (written, entry) in table.iter_mut().zip(&map) {
        let type_ = if entry.kind == Kind::Ram { RAM } else { RESERVED };
        *written = boot_e820_entry { addr: entry.start, size: entry.size, r#type: type_ };
    }
    parameters.e820_table = table;
    parameters.e820_entries = u8::try_from(map.len().min(table.len())).unwrap_or_default();
    parameters
}

/// Addresses below the hole.
fn as_u32(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
