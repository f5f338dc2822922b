//! The local APIC as firmware leaves it: LINT0 takes the 8259s' interrupts, LINT1 the NMI.

use kvm_bindings::kvm_lapic_state;
use kvm_ioctls::VcpuFd;

/// Registers of the local vector table (Intel SDM volume 3, §11.5.1) and delivery modes in their bits 8 to 10.
const LINT0: usize = 0x350;
const LINT1: usize = 0x360;
const EXT_INT: u32 = 0b111 << 8;
const NMI: u32 = 0b100 << 8;

/// Sets both.
///
/// # Errors
/// What KVM answers.
pub(crate) fn set(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    let mut apic = vcpu.get_lapic()?;
    write(&mut apic, LINT0, EXT_INT);
    write(&mut apic, LINT1, NMI);
    vcpu.set_lapic(&apic)
}

fn write(apic: &mut kvm_lapic_state, register: usize, value: u32) {
    let bytes = apic.regs.iter_mut().skip(register);
    bytes.zip(value.to_le_bytes()).for_each(|(to, from)| *to = from.cast_signed());
}
