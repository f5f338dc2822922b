//! A machine for its user: what it is made of, and how it is run to its end.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use machine::Cpu;
use vmm_sys_util::eventfd::EventFd;

use crate::acpi::AcpiError;
use crate::board::Board;
use crate::boot::{BootError, Kernel};
use crate::control::{Controller, Ending, Event, Notice};
use crate::functions::{AttachError, Nic};
use crate::memory::MemoryError;
use crate::state::{DevicesState, UnknownVersion};
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
    /// What is booted.
    pub kernel: Kernel,
    /// The far end of the first serial port: a stream.
    pub console: OwnedFd,
    /// Network devices in the order of their slots.
    pub nics: Vec<Nic>,
    /// Where the entropy source takes its bytes from, if there is one: the host's random bytes, open.
    pub random: Option<File>,
    /// What a reset does.
    pub resets: Resets,
    /// What the devices begin with; without it they are as after a reset.
    pub devices: Option<DevicesState>,
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
    /// No processors.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// No virtio device.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// State of another release.
    #[error(transparent)]
    State(#[from] UnknownVersion),
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

/// A machine that has not started.
#[derive(Debug)]
pub struct Vm {
    parts: Parts,
    board: Board,
    controller: Controller,
    notices: Receiver<Notice>,
    wake: Arc<EventFd>,
}

impl Vm {
    /// Puts a machine together. No thread is made, and the guest does not run yet.
    ///
    /// # Errors
    /// When a part is unusable or the host refuses; nothing is left then.
    pub fn new(mut parts: Parts) -> Result<Self, VmmError> {
        let (controller, notices, wake) = Controller::new().map_err(system("no event descriptor"))?;
        let board = Board::build(&mut parts, &wake)?;
        Ok(Self { parts, board, controller, notices, wake })
    }

    /// What sends commands to this machine.
    #[must_use]
    pub fn controller(&self) -> Controller {
        self.controller.clone()
    }

    /// What a snapshot keeps of the devices of a machine that does not run.
    #[must_use]
    pub fn save_devices(&self) -> DevicesState {
        DevicesState::of(&self.board.bus, &self.board.functions)
    }

    /// Runs the machine to its end on this thread, through all its resets, and restricts the thread's system calls to that. `on_event` is called with each change; the machine
    /// begins paused if `paused` says so.
    ///
    /// # Errors
    /// When there are no threads for the processors, the loop cannot wait, or a reset machine cannot be put together.
    pub fn run(self, mut paused: bool, on_event: &mut dyn FnMut(Event)) -> Result<Ending, VmmError> {
        let Self { mut parts, mut board, controller, notices, wake } = self;
        let mut confined = false;
        loop {
            let ending = board.run(&controller, &notices, &wake, paused, &mut confined, on_event)?;
            let (Ending::Reset { by_guest }, Resets::Boot) = (&ending, parts.resets) else { return Ok(ending) };
            on_event(Event::Reset { by_guest: *by_guest });
            // Other processors may have ended as well; commands are for the machine that follows.
            let commands: Vec<_> = notices.try_iter().filter(|notice| !matches!(notice, Notice::Ended(_))).collect();
            commands.into_iter().for_each(|command| controller.notify(command));
            // First, so that the host never holds the memory of both.
            drop(board);
            board = Board::build(&mut parts, &wake)?;
            paused = false;
        }
    }
}

/// For a call of the system that failed.
pub(crate) fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> VmmError {
    move |source| VmmError::System { what, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_machine_without_processors_or_with_too_many_is_refused() {
        for cores in [65, u32::MAX] {
            let (near, _far) = UnixStream::pair().unwrap();
            let kernel = Kernel { image: tempfile::tempfile().unwrap(), initrd: None, command_line: String::new() };
            let cpu = Cpu { sockets: 1, cores, threads: 1 };
            let parts = Parts {
                kvm: tempfile::tempfile().unwrap().into(),
                cpu,
                memory_bytes: 128 << 20,
                kernel,
                console: near.into(),
                devices: None,
                nics: Vec::new(),
                random: None,
                resets: Resets::End,
            };
            assert!(matches!(Vm::new(parts), Err(VmmError::Processors(count)) if count == cores));
        }
    }
}
