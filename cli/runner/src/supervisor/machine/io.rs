//! What goes into the supervisor's machine and what comes out of it.

use std::net::IpAddr;
use std::time::Duration;

use api::run_strategy::RunOutcome;
use terms::IfName;

use super::super::control::LauncherEvent;
use super::super::pod::StartFailure;
use super::super::probes::Purpose;
use crate::network::Wired;
use crate::process::Process;
use crate::protocol::{Report, Request};
use crate::record::Status;

/// The time, as the machine knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Now {
    /// Since the supervisor started; never goes back.
    pub(crate) since_start: Duration,
    /// Seconds since 1970, for the record.
    pub(crate) unix_seconds: u64,
}

/// Something happened, or was requested by a client `C`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SupervisorInput<C> {
    /// The networks are attached, or why not.
    Attached(Result<Attached, StartFailure>),
    /// The launcher's process was started, or why not. A launcher that has ended already has no process to note.
    Launched(Result<Option<Process>, StartFailure>),
    /// The launcher reports an event of its guest.
    Launcher(LauncherEvent),
    /// Whether the launcher has accepted the last [`SupervisorAction::StopGuest`].
    StopAnswered {
        /// `false` when it refused or did not answer.
        accepted: bool,
    },
    /// A probe's verdict has changed.
    Probe(Purpose, bool),
    /// The launcher and all processes of its session have ended.
    Exited(LauncherExit),
    /// A client's request, and the client to be answered.
    Request(Request, C),
    /// The command that started the VM has closed its connection.
    StarterGone,
    /// SIGTERM, as when the host shuts down.
    Terminate,
    /// The result of [`SupervisorAction::Save`], with the reason of a failure.
    Saved(Result<(), String>),
    /// Services are up to date with every [`SupervisorAction::Serve`] so far.
    Served,
    /// What came of [`SupervisorAction::Detach`]: what could not be removed.
    Detached(Result<(), String>),
    /// The result of [`SupervisorAction::Forget`], with the reason of a failure.
    Forgotten(Result<(), String>),
    /// The deadline that the machine asked for has come.
    Time,
}

/// What the event loop is to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SupervisorAction<C> {
    /// Attach the networks; answered by `Attached`.
    Attach,
    /// Start a launcher; answered by `Launched`, in the end by `Exited`.
    Launch,
    /// Start the probes of a guest that runs.
    StartProbes {
        /// Addresses of the VM on the primary network.
        addresses: Vec<IpAddr>,
    },
    /// Stop probing while the guest is paused, or go on.
    PauseProbes(bool),
    /// Request the launcher to end its guest; answered by `StopAnswered`.
    StopGuest {
        /// Time that the guest has to power off.
        grace: Duration,
    },
    /// Send SIGTERM to the launcher.
    TerminateLauncher,
    /// Send SIGKILL to the launcher.
    KillLauncher,
    /// Write the status; answered by `Saved`.
    Save(Box<Status>),
    /// Bring Services up to date with the status; answered by `Served`.
    Serve,
    /// Report to the command that started the VM.
    Tell(Report),
    /// Answer the client of a request.
    Answer(C, Report),
    /// Remove everything that is on the host; answered by `Detached`.
    Detach,
    /// Close the socket and record the end; answered by `Forgotten`.
    Forget {
        /// The status that is recorded last.
        status: Box<Status>,
        /// Whether the record is removed instead.
        remove: bool,
    },
    /// End the supervisor with this exit code.
    Exit(u8),
}

/// The pod's network once it is attached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Attached {
    /// Addresses on the primary network.
    pub(crate) addresses: Vec<IpAddr>,
    /// Links on the host's side.
    pub(crate) host_links: Vec<IfName>,
    /// Whether the guest is given a name server.
    pub(crate) has_name_server: bool,
    /// What the binding plugin warns of.
    pub(crate) warnings: Vec<String>,
}

/// How a launcher's run of the guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LauncherExit {
    /// What it means for the run strategy.
    pub(crate) outcome: RunOutcome,
    /// Why it ended, in a sentence.
    pub(crate) reason: String,
    /// The exit code that a command passes on when this ends it.
    pub(crate) exit_code: u8,
}

impl From<Wired> for Attached {
    fn from(wired: Wired) -> Self {
        let has_name_server = !wired.resolv.servers.is_empty();
        Self { addresses: wired.addresses, host_links: wired.host_links, has_name_server, warnings: wired.warnings }
    }
}

impl LauncherExit {
    /// A launcher that failed for a reason that is not its own.
    pub(crate) fn failed(failure: StartFailure) -> Self {
        Self { outcome: RunOutcome::Failed, reason: failure.message, exit_code: failure.exit_code }
    }

    /// The same end, of a guest that was ended because its liveness probe failed.
    pub(crate) fn unhealthy(self) -> Self {
        Self { outcome: RunOutcome::Failed, reason: "its liveness probe failed".to_owned(), exit_code: 7 }
    }
}
