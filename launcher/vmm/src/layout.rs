//! Where everything is in the guest's physical address space and among its ports: the one table of these numbers.

/// End of the memory that a BIOS leaves to a loader; from here to 1 MiB is reserved.
pub(crate) const LOW_MEMORY_END: u64 = 0x9_fc00;
/// The GDT that the first processor starts with.
pub(crate) const GDT: u64 = 0x500;
/// Start-of-day structure of PVH, its module list and its memory map.
pub(crate) const PVH_INFO: u64 = 0x6000;
pub(crate) const PVH_MODULES: u64 = 0x6040;
pub(crate) const PVH_MEMORY_MAP: u64 = 0x6080;
/// `struct boot_params` of the Linux boot protocol, a page.
pub(crate) const BOOT_PARAMS: u64 = 0x7000;
/// Kernel command line, with its NUL at most [`COMMAND_LINE_MAX`].
pub(crate) const COMMAND_LINE: u64 = 0x2_0000;
/// `COMMAND_LINE_SIZE` of Linux on x86.
pub(crate) const COMMAND_LINE_MAX: usize = 2048;
/// The RSDP, where a guest without boot information looks for it (ACPI 6.5 §5.2.5.1); the other tables follow.
pub(crate) const RSDP: u64 = 0xe_0000;
/// SMBIOS's entry point, where a guest without EFI looks for it (DSP0134 §5.2), and its structures; ACPI tables end below.
pub(crate) const SMBIOS: u64 = 0xf_0000;
/// Where a PC's BIOS begins after a reset: F000:FFF0 in real mode.
pub(crate) const RESET_VECTOR: u64 = 0xf_fff0;
/// End of the room for tables, and start of the kernel.
pub(crate) const HIGH_MEMORY: u64 = 0x10_0000;

/// RAM ends here and goes on at [`HOLE_END`]; between them are PCI, interrupt controllers and what KVM needs.
pub(crate) const HOLE: u64 = 0xc000_0000;
pub(crate) const HOLE_END: u64 = 1 << 32;
/// Window of 32-bit BARs, up to [`ECAM`].
pub(crate) const PCI_WINDOW: u32 = 0xc000_0000;
/// Configuration space of bus 0 (PCI Express 6.0 §7.2.2): one bus, because Linux probes each slot of each bus it is told of.
pub(crate) const ECAM: u64 = 0xe000_0000;
pub(crate) const ECAM_SIZE: u64 = 1 << 20;
pub(crate) const IO_APIC: u32 = 0xfec0_0000;
pub(crate) const LOCAL_APIC: u32 = 0xfee0_0000;
/// Three pages for KVM's real-mode emulation on Intel processors (KVM_SET_TSS_ADDR).
pub(crate) const KVM_TSS: usize = 0xfffb_d000;

/// Interrupt of the first serial port.
pub(crate) const SERIAL_INTERRUPT: u32 = 4;
/// Interrupt of ACPI events, level-triggered and active high.
pub(crate) const EVENT_INTERRUPT: u8 = 9;

/// Ports of the first serial port.
pub(crate) const SERIAL: u16 = 0x3f8;
pub(crate) const SERIAL_PORTS: u16 = 8;
/// Data and command port of the keyboard controller.
pub(crate) const I8042_DATA: u16 = 0x60;
pub(crate) const I8042_COMMAND: u16 = 0x64;
/// Index and data port of the real-time clock.
pub(crate) const RTC: u16 = 0x70;
/// Doorbells of virtio functions, a BAR for each slot.
pub(crate) const DOORBELL_PORTS: u16 = 0xc000;
/// Where firmware writes what it does.
pub(crate) const DEBUG_PORT: u16 = 0x402;
/// Where the guest's kernel reports that it gave up.
pub(crate) const PVPANIC: u16 = 0x505;
/// Sleep registers of ACPI, and what its event device reports.
pub(crate) const POWER: u16 = 0x600;
pub(crate) const POWER_PORTS: u16 = 3;
/// Configuration mechanism 1 of PCI: address and data.
pub(crate) const PCI_ADDRESS: u16 = 0xcf8;
pub(crate) const PCI_DATA: u16 = 0xcfc;

const _: () = assert!(HOLE == PCI_WINDOW as u64 && ECAM + ECAM_SIZE <= IO_APIC as u64);
const _: () = assert!(COMMAND_LINE + COMMAND_LINE_MAX as u64 <= LOW_MEMORY_END);
