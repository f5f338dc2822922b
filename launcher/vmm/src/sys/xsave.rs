//! The floating-point state of a processor.
#![expect(unsafe_code, reason = "kvm-ioctls takes it by a structure that may be shorter than what KVM reads")]

use kvm_bindings::kvm_xsave;
use kvm_ioctls::VcpuFd;

/// KVM_SET_XSAVE.
///
/// # Errors
/// What KVM answers.
pub(crate) fn set(vcpu: &VcpuFd, state: &kvm_xsave) -> Result<(), kvm_ioctls::Error> {
    // SAFETY: KVM reads more than this structure only of a guest that was permitted dynamic features by ARCH_REQ_XCOMP_GUEST_PERM
    // of arch_prctl(2), which this process never calls.
    unsafe { vcpu.set_xsave(state) }
}
