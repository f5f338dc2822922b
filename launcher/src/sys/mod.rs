//! What no safe crate offers: the moment between fork and exec, a guest's memory for KVM.

pub(crate) mod child;
pub(crate) mod kvm_probe;
