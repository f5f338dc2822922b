//! The first processor's registers: flat 32-bit protected mode without paging, as PVH and Linux's 32-bit entry want it.

use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryError};

use crate::boot::Entry;
use crate::layout::GDT;
use crate::memory::GuestMemory;

/// Selectors of Linux's boot protocol; PVH leaves them open.
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
const TASK: u16 = 0x20;
/// Null, unused, flat 32-bit code, flat data, a busy 32-bit TSS at 0 of 0x67 bytes (Intel SDM volume 3, §3.4.5).
const TABLE: [u64; 5] = [0, 0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x0000_8b00_0000_0067];

/// Offset of the table's last byte.
const TABLE_LIMIT: u16 = 39;
const _: () = assert!(TABLE_LIMIT as usize + 1 == size_of::<[u64; 5]>());

/// CR0: protection enabled, extension type (always one).
const CR0: u64 = 1 | 1 << 4;
/// RFLAGS: bit 1 is always one; interrupts are off.
const RFLAGS: u64 = 1 << 1;

/// IA32_MISC_ENABLE: fast strings. IA32_MTRR_DEF_TYPE: MTRRs on, write-back (Intel SDM volume 4; volume 3, §12.11.2.1).
const MISC_ENABLE: (u32, u64) = (0x1a0, 1);
const MTRR_DEFAULT: (u32, u64) = (0x2ff, 1 << 11 | 6);

/// Writes the GDT that the registers point at.
///
/// # Errors
/// When the guest has no memory there.
pub(crate) fn write_gdt(memory: &GuestMemory) -> Result<(), GuestMemoryError> {
    let bytes: Vec<u8> = TABLE.into_iter().flat_map(u64::to_le_bytes).collect();
    memory.write_slice(&bytes, GuestAddress(GDT))
}

/// Sets the registers of the first processor.
///
/// # Errors
/// What KVM answers.
pub(crate) fn set(vcpu: &VcpuFd, entry: Entry) -> Result<(), kvm_ioctls::Error> {
    let mut special = vcpu.get_sregs()?;
    let segment = |selector: u16, type_: u8| kvm_segment {
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    };
    special.cs = segment(CODE, 0xb);
    for data in [&mut special.ds, &mut special.es, &mut special.fs, &mut special.gs, &mut special.ss] {
        *data = segment(DATA, 0x3);
    }
    special.tr = kvm_segment { limit: 0x67, selector: TASK, type_: 0xb, present: 1, ..kvm_segment::default() };
    special.gdt.base = GDT;
    special.gdt.limit = TABLE_LIMIT;
    special.idt.limit = 0;
    special.cr0 = CR0;
    vcpu.set_sregs(&special)?;
    let registers = kvm_regs { rip: entry.rip, rbx: entry.rbx, rsi: entry.rsi, rflags: RFLAGS, ..kvm_regs::default() };
    vcpu.set_regs(&registers)
}

/// Sets the model-specific registers that firmware would; one that this processor lacks is left out.
///
/// # Errors
/// What KVM answers.
pub(crate) fn set_msrs(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    for (index, data) in [MTRR_DEFAULT, MISC_ENABLE] {
        let entry = kvm_msr_entry { index, data, ..Default::default() };
        if let Ok(msrs) = Msrs::from_entries(&[entry]) {
            vcpu.set_msrs(&msrs)?;
        }
    }
    Ok(())
}
