//! KVM by a descriptor, and the guest's memory in it.
#![expect(unsafe_code, reason = "KVM is given memory by address, and kvm-ioctls takes a descriptor as a number only")]

use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VmFd};
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

use super::ram::GuestMemory;

/// KVM by its open device node.
pub(crate) fn kvm(node: OwnedFd) -> Kvm {
    // SAFETY: the number comes out of an OwnedFd, which gives it up here: it is open and has no other owner.
    unsafe { Kvm::from_raw_fd(node.into_raw_fd()) }
}

/// A virtual machine of KVM with the memory that it runs in.
#[derive(Debug)]
pub(crate) struct MachineFd {
    /// Before the memory: fields are dropped in their order.
    fd: VmFd,
    memory: GuestMemory,
}

impl MachineFd {
    /// Puts all of `memory` where its addresses say.
    ///
    /// # Errors
    /// What KVM answers.
    pub(crate) fn new(fd: VmFd, memory: GuestMemory) -> Result<Self, kvm_ioctls::Error> {
        for (slot, region) in (0..).zip(memory.iter()) {
            let place = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: region.host_address(),
            };
            // SAFETY: the region is mapped, that large, and stays mapped as long as this value, which every processor's
            // thread holds until its KVM_RUN has returned for the last time; regions of `GuestMemory` do not overlap.
            unsafe { fd.set_user_memory_region(place) }?;
        }
        Ok(Self { fd, memory })
    }

    /// KVM's descriptor.
    pub(crate) fn fd(&self) -> &VmFd {
        &self.fd
    }

    /// The guest's RAM.
    pub(crate) fn memory(&self) -> &GuestMemory {
        &self.memory
    }
}
