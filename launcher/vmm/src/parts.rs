//! What a machine is made of, and why it cannot be put together.

use std::fs::File;
use std::os::fd::OwnedFd;

use machine::Cpu;

use crate::acpi::AcpiError;
use crate::boot::{BootError, Kernel};
use crate::control::Snapshot;
use crate::functions::{AttachError, Nic};
use crate::memory::MemoryError;
use crate::smbios::{Identity, SmbiosError};
use crate::state::StateError;
use crate::vcpu::VcpuError;

/// All that a machine is made of, open.
#[derive(Debug)]
pub struct Parts {
    /// An open /dev/kvm.
    pub kvm: OwnedFd,
    /// Processors.
    pub cpu: Cpu,
    /// Guest memory, in bytes.
    pub memory_bytes: u64,
    /// Size of the huge pages of the host's pool that it is made of; without, the kernel chooses. A balloon cannot give them back.
    pub hugepage_bytes: Option<u64>,
    /// Who it is.
    pub identity: Identity,
    /// What is booted.
    pub kernel: Kernel,
    /// The far end of the first serial port: a stream.
    pub console: OwnedFd,
    /// Network devices in the order of their slots.
    pub nics: Vec<Nic>,
    /// Where the entropy source takes its bytes from, if there is one: the host's random bytes, open.
    pub random: Option<File>,
    /// Whether there is a memory balloon, by which memory that the guest does not use goes back to the host.
    pub balloon: bool,
    /// What a reset does.
    pub resets: Resets,
    /// What the machine goes on from, of a machine of the same parts; without it the kernel is booted.
    pub snapshot: Option<Snapshot>,
}

/// What a reset by the guest or the reset button does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resets {
    /// The machine boots its kernel again.
    Boot,
    /// The machine ends.
    End,
}

/// Why a machine cannot be put together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VmmError {
    /// Too many processors.
    #[error("{0} processors: expected 1 to 64, in a topology whose APIC ids have 8 bits")]
    Processors(u32),
    /// KVM refused.
    #[error("KVM refuses {what}")]
    Kvm {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// No memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Nothing to boot.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// No ACPI tables.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// No SMBIOS tables.
    #[error(transparent)]
    Smbios(#[from] SmbiosError),
    /// No processors.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// No virtio device.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The snapshot is of another machine, or of another release.
    #[error(transparent)]
    State(#[from] StateError),
    /// The system refused.
    #[error("{what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Its reason.
        #[source]
        source: std::io::Error,
    },
}

/// For a call of the system that failed.
pub(crate) fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> VmmError {
    move |source| VmmError::System { what, source }
}
