//! A machine for its user, run to its end.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use vmm_sys_util::eventfd::EventFd;

use crate::board::Board;
use crate::control::{Controller, Ending, Event, Notice};
use crate::parts::{Parts, Resets, VmmError, system};

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
            let by_guest = match (ending, parts.resets) {
                (Ending::Reset { by_guest }, Resets::Boot) => by_guest,
                (Ending::PoweredOff, _) if controller.takes_boot_at_shutdown() => false,
                (ending, _) => return Ok(ending),
            };
            on_event(Event::Reset { by_guest });
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use machine::{Cpu, CpuModel};

    use super::*;
    use crate::boot::Kernel;
    use crate::smbios::Identity;

    #[test]
    fn a_machine_without_processors_or_with_too_many_is_refused() {
        for cores in [65, u32::MAX] {
            let (near, _far) = UnixStream::pair().unwrap();
            let kernel = Kernel { image: tempfile::tempfile().unwrap(), initrd: None, command_line: String::new() };
            let cpu = Cpu { sockets: 1, cores, threads: 1, model: CpuModel::HostModel };
            let parts = Parts {
                kvm: tempfile::tempfile().unwrap().into(),
                cpu,
                memory_bytes: 128 << 20,
                hugepage_bytes: None,
                identity: Identity { uuid: String::new(), serial_number: None },
                kernel,
                console: near.into(),
                nics: Vec::new(),
                random: None,
                balloon: true,
                resets: Resets::End,
                snapshot: None,
            };
            assert!(matches!(Vm::new(parts), Err(VmmError::Processors(count)) if count == cores));
        }
    }
}
