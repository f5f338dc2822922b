//! The seam between the launcher and what executes the guest: a machine and its opened parts in, events out.
//!
//! An engine knows nothing of pods, wiring, DHCP or control sockets; its caller does not know how it executes the guest.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use machine::{Machine, WatchdogAction};
use protocol::control::EngineKind;
use terms::{MacAddr, Mtu};

use block::OpenDisk;

use crate::counters::{Account, QueueReader};

/// A machine with everything it hangs on already open, in the machine's own order.
#[derive(Debug)]
pub struct Parts {
    /// The hardware that the guest sees.
    pub machine: Machine,
    /// One for each NIC of the machine.
    pub nics: Vec<OpenNic>,
    /// One for each disk of the machine.
    pub disks: Vec<OpenDisk>,
    /// A stream that is the far end of the first serial port.
    pub console: OwnedFd,
    /// A stream that is the far end of the guest agent's channel, for an engine that has one.
    pub agent: Option<OwnedFd>,
}

/// The host's side of a NIC.
#[derive(Debug)]
pub struct OpenNic {
    /// Ethernet address of the guest's NIC.
    pub mac: MacAddr,
    /// What the device announces as the link's MTU.
    pub mtu: Option<Mtu>,
    /// Attached tap descriptors with a vnet header, one for each queue pair.
    pub queues: Vec<OwnedFd>,
    /// As many open vhost-net descriptors, or none.
    pub vhost: Vec<OwnedFd>,
}

/// Something that can execute machines.
pub trait Engine {
    /// The engine that `status` reports.
    fn kind(&self) -> EngineKind;

    /// Whether it can give the guest a device of the host's.
    fn has_passthrough(&self) -> bool;

    /// Whether the guest has a channel for its agent.
    fn has_agent_channel(&self) -> bool;

    /// Starts the machine; from then on everything that happens to it comes as an event, [`Event::Ended`] last. `confine` is
    /// called once and confines this process, when all programs of the engine are started, and all threads that need more than
    /// the launcher's.
    ///
    /// # Errors
    /// When the machine could not be put together; nothing of it is left then.
    fn start(
        &self,
        parts: Parts,
        events: Events,
        confine: &mut dyn FnMut(Confine),
    ) -> Result<Box<dyn Running>, EngineError>;
}

/// Where an engine reports what happens to its machine. What is reported before an engine says that a command is done is known
/// before whatever a client asks after that: nothing lies between this and the queue of the launcher's loop.
#[derive(Clone)]
pub struct Events(Arc<Reporter>);

struct Reporter(Box<dyn Fn(Event) + Send + Sync>);

impl Events {
    /// Events that a function takes.
    pub fn new(report: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Reporter(Box::new(report))))
    }

    /// Reports an event.
    pub fn send(&self, event: Event) {
        (self.0.0)(event);
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Drop for Reporter {
    /// An engine that drops its events without an ending has panicked; after a regular ending nothing is listened to.
    fn drop(&mut self) {
        (self.0)(Event::Ended(Ending::Failed { reason: "the engine has stopped reporting".to_owned() }));
    }
}

/// What is confined when an engine has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confine {
    /// All threads of this process.
    AllThreads,
    /// This thread and those that it makes from now on; the engine's have been confined already.
    ThisThread,
}

/// A machine that was started and has not ended yet.
pub trait Running {
    /// Begins to execute commands in their order, up to the first that fails, and calls `done` once with the result, from
    /// any thread. Never blocks: the caller serves signals. [`Command::Kill`] overtakes commands that are not done yet.
    fn command(&mut self, commands: Vec<Command>, done: Done);

    /// What the process that executes the guest has used; `None` where that is this process. Returned once.
    fn take_account(&mut self) -> Option<Account> {
        None
    }

    /// Reads the queues of each NIC, in the machine's order; none where the engine does not count them. Returned once.
    fn take_queues(&mut self) -> Vec<QueueReader> {
        Vec::new()
    }

    /// Begins to show the guest's screen to a client of VNC (RFC 6143), and calls `done` as [`Self::command`] does.
    fn show(&mut self, client: OwnedFd, done: Done) {
        drop(client);
        done(Err(EngineError::Unsupported("this engine shows no screen".to_owned())));
    }
}

/// Takes the result of [`Running::command`]: an error when the machine has ended, or the engine refuses or does not answer.
pub type Done = Box<dyn FnOnce(Result<(), EngineError>) + Send>;

/// What can be done to a running machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Presses the ACPI power button.
    Powerdown,
    /// Ends the machine at once; disks are flushed.
    Kill,
    /// Stops the processors; memory and devices keep their state.
    Pause,
    /// Lets stopped processors go on.
    Resume,
    /// Presses the reset button: the guest boots again in the same machine.
    Reset,
    /// From now on a guest that shuts down leaves the machine halted: [`Event::ShutDown`] instead of the end.
    KeepAtShutdown,
    /// From now on the machine ends when its guest shuts down, as from the start.
    EndAtShutdown,
    /// Gives a link a carrier or takes it; [`Event::Link`] follows before the command is done.
    SetLink {
        /// The NIC's place in the machine's order.
        nic: usize,
        /// Whether it has a carrier from now on.
        up: bool,
    },
}

/// What happens to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The processors run, for the first time or again.
    Running,
    /// The processors are stopped, by a request or after a disk failed.
    Paused,
    /// The machine was reset, by the guest or by a request.
    Reset {
        /// Whether the guest did it.
        by_guest: bool,
    },
    /// The guest has shut down. The machine ends with it, unless [`Command::KeepAtShutdown`] keeps it.
    ShutDown,
    /// The guest has opened or closed its end of the agent's channel.
    AgentPort {
        /// Whether the guest's end is open now.
        is_open: bool,
    },
    /// A link has got its carrier or lost it.
    Link {
        /// The NIC's place in the machine's order.
        nic: usize,
        /// Whether it has a carrier now.
        up: bool,
    },
    /// The watchdog was not fed and acts.
    Watchdog(WatchdogAction),
    /// A disk could not be read or written.
    DiskFailed {
        /// Name of the disk in the manifest.
        disk: String,
        /// The host's error, as text.
        reason: String,
        /// Whether the machine is paused until it is resumed.
        paused: bool,
    },
    /// The machine has ended; the last event.
    Ended(Ending),
}

impl Event {
    /// What an executed command has done to a link.
    pub(crate) fn of_link(command: &Command) -> Option<Self> {
        match *command {
            Command::SetLink { nic, up } => Some(Self::Link { nic, up }),
            _ => None,
        }
    }
}

/// How a machine ended; decides the outcome and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The guest switched itself off.
    PoweredOff,
    /// The guest reset itself, and the machine's policy makes that the end.
    Rebooted,
    /// The guest's kernel gave up.
    Crashed {
        /// What is known of why.
        reason: String,
    },
    /// The guest stopped feeding its watchdog, whose action is to end the machine.
    Watchdog,
    /// [`Command::Kill`], or a signal from outside.
    Killed,
    /// The engine ended by itself, without a reason in the guest.
    Failed {
        /// The engine's last message, or how its process ended.
        reason: String,
    },
}

/// Why an engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A program it needs is not there.
    #[error("{program} is not installed, the package is {package}")]
    Missing {
        /// Name of the program, searched for in PATH.
        program: &'static str,
        /// Debian's name of what holds it.
        package: &'static str,
    },
    /// The machine asks for something the engine does not have.
    #[error("{0}")]
    Unsupported(String),
    /// It could not be started.
    #[error("{program:?} could not be executed")]
    Spawn {
        /// Path of the program.
        program: PathBuf,
        /// The error of starting it.
        #[source]
        source: std::io::Error,
    },
    /// It started and gave up before the guest ran.
    #[error("the engine gave up before the guest ran: {0}")]
    GaveUp(String),
    /// The engine answered a command with an error.
    #[error("the engine refused {command}: {reason}")]
    Refused {
        /// Name of the command in the engine's protocol.
        command: &'static str,
        /// The error, in the engine's words.
        reason: String,
    },
    /// The machine has ended: no command reaches it any more.
    #[error("the machine has ended")]
    Ended,
    /// Earlier commands are not done yet.
    #[error("the engine is busy with {0} earlier requests")]
    Busy(usize),
    /// The engine did not answer within its time; it counts as stuck.
    #[error("the engine has not answered {command} for {seconds} seconds")]
    Silent {
        /// Name of the command in the engine's protocol.
        command: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The machinery around it failed.
    #[error("{what}")]
    System {
        /// What the engine lacks: "no thread for the monitor".
        what: &'static str,
        /// The error of the system call.
        #[source]
        source: std::io::Error,
    },
}
