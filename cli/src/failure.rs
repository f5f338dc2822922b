//! How a command ends: its exit code, and what it says on stderr.

use protocol::chain::chain;
use runner::files::FileError;
use runner::host::HostError;
use runner::plan::PlanError;
use runner::start::StartError;
use runner::store::StoreError;
use runner::supervisor::ReleaseError;

/// The exit codes of every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// What was asked for did not work.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// A manifest or another input is wrong.
    Invalid = 3,
    /// There is no such VM.
    NotFound = 4,
    /// A VM or Service of that name exists already.
    Exists = 5,
    /// The host lacks a device, a program or a setting that VMs need.
    HostLacks = 6,
    /// The guest ran and failed: the VM's phase is `Failed`.
    GuestFailed = 7,
    /// SIGINT ended the command: 128 plus the signal's number.
    Interrupted = 130,
}

/// A command that did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code: an [`Exit`], or that which a supervisor or launcher reports.
    pub(crate) code: u8,
    /// Lines for stderr, without a line break at the end.
    pub(crate) messages: Vec<String>,
}

impl Failure {
    /// A failure with one line.
    #[must_use]
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { code: exit as u8, messages: vec![message.into()] }
    }

    /// A failure with several lines.
    #[must_use]
    pub(crate) fn lines(exit: Exit, messages: Vec<String>) -> Self {
        Self { code: exit as u8, messages }
    }

    /// A failure that was told by a process of ours.
    #[must_use]
    pub(crate) fn told(code: u8, message: String) -> Self {
        Self { code, messages: vec![message] }
    }

    /// This failure, and another one that followed it: the exit code stays the first one's.
    #[must_use]
    pub(crate) fn with(mut self, later: Self) -> Self {
        self.messages.extend(later.messages);
        self
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let exit = match &error {
            StoreError::Exists(_) => Exit::Exists,
            StoreError::NotFound(_) => Exit::NotFound,
            StoreError::File(_) | StoreError::Damaged { .. } | StoreError::Busy { .. } => Exit::Failed,
        };
        Self::new(exit, chain(&error))
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Store(error) => error.into(),
            error @ (StartError::Overlap(_) | StartError::Owner(_)) => Self::new(Exit::HostLacks, chain(&error)),
            error => Self::new(Exit::Failed, chain(&error)),
        }
    }
}

impl From<Vec<PlanError>> for Failure {
    fn from(errors: Vec<PlanError>) -> Self {
        let exit = if errors.iter().all(PlanError::is_hosts) { Exit::HostLacks } else { Exit::Invalid };
        Self::lines(exit, errors.iter().map(|error| chain(error)).collect())
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::new(Exit::Failed, chain(&error))
    }
}

impl From<ReleaseError> for Failure {
    fn from(error: ReleaseError) -> Self {
        Self::new(Exit::Failed, chain(&error))
    }
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        Self::new(Exit::Failed, chain(&error))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Failed, chain(&error))
    }
}
