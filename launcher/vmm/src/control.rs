//! What a machine is told and what it reports, between its event loop, its processors and its user.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// What can be done to a running machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Presses the power button.
    PowerButton,
    /// Stops the processors.
    Pause,
    /// Lets them go on.
    Resume,
    /// Presses the reset button.
    Reset,
    /// Ends the machine at once.
    Kill,
}

/// What happens to a machine that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The processors run, for the first time or again.
    Running,
    /// The processors are stopped.
    Paused,
}

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The guest switched itself off.
    PoweredOff,
    /// The guest or the reset button asked for a new start.
    Reset {
        /// Whether it was the guest.
        by_guest: bool,
    },
    /// The guest's kernel gave up.
    Crashed {
        /// What is known of why.
        reason: String,
    },
    /// [`Command::Kill`].
    Killed,
    /// KVM could not go on.
    Failed {
        /// What it reported.
        reason: String,
    },
}

/// What reaches the event loop from other threads.
#[derive(Debug)]
pub(crate) enum Notice {
    /// From the machine's user.
    Command(Command),
    /// From a processor: the machine is over.
    Ended(Ending),
}

/// Sends commands to a machine from any thread. A command to a machine that has ended is lost.
#[derive(Debug, Clone)]
pub struct Controller {
    notices: Sender<Notice>,
    wake: Arc<EventFd>,
}

impl Controller {
    /// A controller and what its machine reads from.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub(crate) fn new() -> std::io::Result<(Self, Receiver<Notice>, Arc<EventFd>)> {
        let wake = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        let (notices, read) = channel();
        Ok((Self { notices, wake: Arc::clone(&wake) }, read, wake))
    }

    /// Sends a command.
    pub fn send(&self, command: Command) {
        self.notify(Notice::Command(command));
    }

    /// Sends what a processor found out.
    pub(crate) fn notify(&self, notice: Notice) {
        // Both fail only when the machine is gone, and then it needs no notice.
        drop(self.notices.send(notice));
        drop(self.wake.write(1));
    }
}
