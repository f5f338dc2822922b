//! What no safe crate offers: descriptors by number, the moment between fork and exec, a guest's memory for KVM.

pub(crate) mod child;
pub(crate) mod descriptors;
pub(crate) mod kvm_probe;
pub(crate) mod spawn;
