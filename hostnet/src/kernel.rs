//! The seam between plans and the machine: what carries out operations and reports facts.

use std::io;

use terms::IfName;

use crate::facts::{Ask, Facts};
use crate::netns::NetnsError;
use crate::nft::Table;
use crate::op::Op;

/// A network namespace that can be read and changed: the real one or a fake.
pub trait Kernel {
    /// Reads what is asked for.
    ///
    /// # Errors
    /// When the kernel refuses, or answers what cannot be understood.
    fn gather(&mut self, ask: &Ask) -> Result<Facts, KernelError>;

    /// Whether these nft tables are there as they were written, in a namespace with the links of `facts`.
    ///
    /// Costs a fraction of reading them. `false` says only that something differs, perhaps something that does not matter:
    /// [`Kernel::gather`] and [`TableFacts::differences`](crate::nft::TableFacts::differences) tell what.
    ///
    /// # Errors
    /// As [`Kernel::gather`].
    fn holds(&mut self, tables: &[Table], facts: &Facts) -> Result<bool, KernelError>;

    /// Carries out operations in order and stops at the first that fails.
    ///
    /// Operations on links, addresses and routes that follow one another may travel together; then some after the failed
    /// one may have taken effect. Only [`Kernel::gather`] tells.
    ///
    /// # Errors
    /// The first failure and the operation it belongs to.
    fn execute(&mut self, ops: &[Op]) -> Result<(), Failure>;
}

/// An operation that failed; those before it have taken effect, some after it perhaps too.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub struct Failure {
    /// Index of the operation among those executed.
    pub index: usize,
    /// The operation in the syntax of `ip`, `bridge`, `sysctl` or `nft`.
    pub what: String,
    /// Why the kernel or this program refused it.
    #[source]
    pub error: KernelError,
}

/// Why the kernel could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum KernelError {
    /// The kernel answered with an error number.
    #[error("{meaning} (errno {errno}){}", .said.as_ref().map(|said| format!("; the kernel says: {said}")).unwrap_or_default())]
    Refused {
        errno: i32,
        /// What the number means for this operation.
        meaning: String,
        /// The kernel's own words, where it has any.
        said: Option<String>,
    },
    /// A link that the operation names is not there.
    #[error("there is no link {0}")]
    NoLink(IfName),
    /// A device node or file could not be used.
    #[error("cannot {action} {path}: {hint}")]
    File {
        action: &'static str,
        path: String,
        /// What to do about it.
        hint: String,
        #[source]
        source: io::Error,
    },
    /// A netlink socket could not be opened, written to or read from.
    #[error("netlink {action} failed")]
    Socket {
        action: &'static str,
        #[source]
        source: io::Error,
    },
    /// The kernel's answer makes no sense to this program.
    #[error("cannot understand the kernel's answer about {what}: {why}")]
    Decode {
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The plan asks for what cannot be expressed.
    #[error("{0}")]
    Invalid(String),
}

impl KernelError {
    /// A refusal with the ordinary meaning of an error number.
    #[must_use]
    pub fn refused(errno: i32) -> Self {
        Self::Refused { errno, meaning: meaning(errno), said: None }
    }

    /// The error number, if the kernel gave one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::File { source, .. } | Self::Socket { source, .. } => source.raw_os_error(),
            Self::NoLink(_) | Self::Decode { .. } | Self::Netns(_) | Self::Invalid(_) => None,
        }
    }

    /// Whether the kernel lacks the part that was asked, so that nothing of it can be there: without netfilter's netlink it
    /// refuses the socket, without nf_tables the question.
    #[must_use]
    pub fn lacks_subsystem(&self) -> bool {
        matches!(self.errno(), Some(libc::EPROTONOSUPPORT | libc::EINVAL | libc::EOPNOTSUPP))
    }

    /// Whether what was to be removed is not there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::NoLink(_))
            || matches!(self.errno(), Some(libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::EADDRNOTAVAIL))
    }
}

/// An error number in words that help.
fn meaning(errno: i32) -> String {
    match errno {
        libc::EPERM => "not permitted: CAP_NET_ADMIN in the namespace's user namespace is needed".to_owned(),
        libc::EEXIST => "it exists already".to_owned(),
        libc::ENOENT => "it, or something it refers to, does not exist".to_owned(),
        libc::ENODEV => "no such device".to_owned(),
        libc::ESRCH => "no such entry".to_owned(),
        libc::EOPNOTSUPP => "this kernel or device cannot do it".to_owned(),
        libc::EADDRNOTAVAIL => "the address is not there".to_owned(),
        libc::ENETUNREACH => "no route to the gateway: it is in no network of the link".to_owned(),
        _ => nix::errno::Errno::from_raw(errno).desc().to_owned(),
    }
}
