//! What a machine is told and what it reports, between its event loop, its processors and its user.

use std::fmt;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    /// Gives the link of a network device a carrier, or takes it.
    Link {
        /// The device's place in the order of slots.
        nic: usize,
        /// Whether it has a carrier from now on.
        up: bool,
    },
    /// Asks the guest to give up so much of its memory; it takes it back when it has too little.
    Balloon {
        /// In bytes.
        bytes: u64,
    },
}

/// Where the state of a machine is written to, or read from: two regular files, each at its beginning.
#[derive(Debug)]
pub struct Snapshot {
    /// The versioned document of all that is no memory.
    pub state: File,
    /// The guest's RAM, as large as it.
    pub memory: File,
}

/// What happens to a machine that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The processors run, for the first time or again.
    Running,
    /// The processors are stopped.
    Paused,
    /// The machine begins again, as after power-on.
    Reset {
        /// Whether it was the guest.
        by_guest: bool,
    },
}

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The guest switched itself off.
    PoweredOff,
    /// The guest or the reset button asked for a new start, and [`crate::Parts::resets`] makes that the end.
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

/// Called once when a command was executed, with `true`, or never will be, because the machine has ended.
pub struct Done(Option<Box<dyn FnOnce(bool) + Send>>);

impl Done {
    /// Calls `done`, from any thread.
    pub fn new(done: impl FnOnce(bool) + Send + 'static) -> Self {
        Self(Some(Box::new(done)))
    }

    /// The command was executed.
    pub(crate) fn report(mut self) {
        self.call(true);
    }

    fn call(&mut self, executed: bool) {
        if let Some(done) = self.0.take() {
            done(executed);
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        self.call(false);
    }
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Done").finish_non_exhaustive()
    }
}

/// Called with what came of a snapshot, unless the machine has ended.
pub(crate) struct Saved(pub(crate) Box<dyn FnOnce(Result<(), String>) + Send>);

impl fmt::Debug for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Saved").finish_non_exhaustive()
    }
}

/// What reaches the event loop from other threads.
#[derive(Debug)]
pub(crate) enum Notice {
    /// From the machine's user, with what waits for it to be executed.
    Command(Command, Option<Done>),
    /// From the machine's user: a snapshot of a paused machine.
    Save(Snapshot, Saved),
    /// From a processor: the machine is over.
    Ended(Ending),
}

/// Sends commands to a machine from any thread. A command to a machine that has ended is not executed.
#[derive(Debug, Clone)]
pub struct Controller {
    notices: Sender<Notice>,
    wake: Arc<EventFd>,
    boots_at_shutdown: Arc<AtomicBool>,
}

impl Controller {
    /// A controller and what its machine reads from.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub(crate) fn new() -> std::io::Result<(Self, Receiver<Notice>, Arc<EventFd>)> {
        let wake = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        let (notices, read) = channel();
        Ok((Self { notices, wake: Arc::clone(&wake), boots_at_shutdown: Arc::default() }, read, wake))
    }

    /// Sends a command.
    pub fn send(&self, command: Command) {
        self.notify(Notice::Command(command, None));
    }

    /// Sends a command and reports when it was executed. Commands are executed in their order.
    pub fn send_then(&self, command: Command, done: Done) {
        self.notify(Notice::Command(command, Some(done)));
    }

    /// Has a guest that switches itself off next boot again, as after a reset, or end the machine, as from the start.
    pub fn boot_at_shutdown(&self, boots: bool) {
        self.boots_at_shutdown.store(boots, Ordering::Release);
    }

    /// Whether a guest that has switched itself off boots again: this once.
    pub(crate) fn takes_boot_at_shutdown(&self) -> bool {
        self.boots_at_shutdown.swap(false, Ordering::AcqRel)
    }

    /// Writes the state of the machine, which must be paused, and reports `Ok` or the reason why there is none. `done` is
    /// dropped without a call when the machine has ended.
    pub fn save(&self, snapshot: Snapshot, done: impl FnOnce(Result<(), String>) + Send + 'static) {
        self.notify(Notice::Save(snapshot, Saved(Box::new(done))));
    }

    /// Sends what a processor found out.
    pub(crate) fn notify(&self, notice: Notice) {
        // Both fail only when the machine is gone, and then it needs no notice.
        drop(self.notices.send(notice));
        drop(self.wake.write(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_is_never_executed_is_reported_once() {
        let (controller, notices, _wake) = Controller::new().unwrap();
        let (tell, told) = channel();
        let done = || {
            let tell = tell.clone();
            Done::new(move |executed| tell.send(executed).unwrap())
        };
        controller.send_then(Command::Pause, done());
        let Ok(Notice::Command(Command::Pause, Some(first))) = notices.try_recv() else { panic!("no command") };
        first.report();
        controller.send_then(Command::Resume, done());
        drop(notices);
        controller.send_then(Command::Kill, done());
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [true, false, false]);
    }
}
