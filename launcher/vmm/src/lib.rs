//! Our KVM machine: memory, processors, interrupts, boot and devices of one guest, run in this process.
//!
//! Flow: [`Vm::new`] puts a machine together from open parts and makes no thread; [`Vm::run`] runs it to its end on the
//! calling thread, with one thread for each processor; a [`Controller`] sends it commands from any thread.
//! Guarantees: no guest input panics, and what the guest does reaches only its own memory and the given descriptors.
//! Assumptions: /dev/kvm runs code on the processor (`tapvisor-launcher probe`).

mod acpi;
mod board;
mod boot;
mod bus;
mod chips;
mod confine;
mod control;
mod devices;
mod event_loop;
mod functions;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod interrupts;
mod kernel_bytes;
mod layout;
mod memory;
mod memory_image;
mod parts;
mod pci;
mod smbios;
mod state;
mod sync;
mod sys;
mod vcpu;
mod virtio;
mod vm;

pub use boot::{BootError, Kernel};
pub use control::{Command, Controller, Done, Ending, Event, Snapshot};
pub use devices::{DataPath, NicReport, QueueCounts};
pub use functions::{AttachError, Nic};
pub use memory::MemoryError;
pub use parts::{Parts, Resets, VmmError};
pub use smbios::{Identity, SmbiosError};
pub use state::StateError;
pub use sys::tap::open as open_tap;
pub use vcpu::ModelError;
pub use vm::Vm;
