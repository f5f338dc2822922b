//! Everything that can go wrong in the binding plugin, and the one table of its codes.

use hostnet::LockError;
use hostnet::netns::NetnsError;
use hostnet::{ApplyError, Failure, KernelError};

use super::drift::Drift;
use super::refusal::Refusal;
use cni_protocol::spec::{Code, Error};

/// Why a verb failed; the conversion to [`Error`] gives each its CNI code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindingError {
    /// The request cannot be met there.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The namespace could not be entered.
    #[error("the namespace cannot be entered")]
    Netns(#[from] NetnsError),
    /// The namespace could not be read.
    #[error("the namespace cannot be read")]
    Read(#[from] KernelError),
    /// An operation of the plan failed; what was done before it is undone.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Something could not be removed.
    #[error("not all could be removed: {}", .0.iter().map(|failure| format!("{failure}: {}", failure.error)).collect::<Vec<_>>().join("; "))]
    TearDown(Vec<Failure>),
    /// The wiring is not as ADD left it.
    #[error("the wiring is not as it was made: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Drift(Vec<Drift>),
    /// The record of calls could not be written.
    #[error("the record {path} cannot be written")]
    Record {
        /// The file that is written to.
        path: std::path::PathBuf,
        /// The error of the write.
        source: std::io::Error,
    },
    /// The host lacks something that every wiring needs.
    #[error("{0}")]
    HostLacks(String),
}

impl From<BindingError> for Error {
    fn from(error: BindingError) -> Self {
        let code = match &error {
            BindingError::Refused(_) => Code::INVALID_CONFIG,
            BindingError::Netns(NetnsError::Locked { source: LockError::Busy { .. }, .. }) => Code::TRY_AGAIN,
            BindingError::Netns(_) => Code::INVALID_NETNS,
            BindingError::Read(_) | BindingError::Apply(_) | BindingError::TearDown(_) => Code::INTERNAL,
            BindingError::Drift(_) => CODE_DRIFT,
            BindingError::Record { .. } => Code::IO,
            BindingError::HostLacks(_) => Code::NOT_AVAILABLE,
        };
        Self::from_chain(code, &error)
    }
}

/// CHECK found something missing or altered; a code of our own, from the range that is left to plugins.
const CODE_DRIFT: Code = Code::plugin(0);
