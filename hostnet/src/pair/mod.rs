//! Plans over two namespaces: the host's and a pod's.
//!
//! *Flow.* Facts of both → plan (pure) → [`apply`]. A step says where it is done. A link is moved, and a virtual cable laid,
//! from where its step is to the other namespace.
//! *Guarantees.* A plan that fails is undone from fresh facts of both namespaces, as one of a single namespace is.

mod apply;
mod inverse;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::facts::{Ask, Facts};
use crate::kernel::{Failure, KernelError};
use crate::op::{Op, write_op};

pub use apply::{apply, tear_down, undo};

/// One of the two namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// The namespace of the plugin.
    Host,
    /// The namespace that CNI_NETNS names.
    Pod,
}

impl Place {
    /// Where its links go when they are moved.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Host => Self::Pod,
            Self::Pod => Self::Host,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "on the host",
            Self::Pod => "in the pod",
        })
    }
}

/// An operation and where it is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// The namespace it is done in.
    pub at: Place,
    /// What is done there.
    pub op: Op,
}

impl Step {
    /// A step on the host.
    #[must_use]
    pub fn host(op: Op) -> Self {
        Self { at: Place::Host, op }
    }

    /// A step in the pod.
    #[must_use]
    pub fn pod(op: Op) -> Self {
        Self { at: Place::Pod, op }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.op, self.at)
    }
}

/// Steps in the order in which they take effect; undone in reverse.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PairPlan {
    /// In the order of execution.
    pub steps: Vec<Step>,
}

/// In the syntax of `ip`, `bridge`, `sysctl` and `nft`, each run of steps under the name of its place.
impl fmt::Display for PairPlan {
    #[cold]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut here = None;
        for step in &self.steps {
            if here != Some(step.at) {
                writeln!(f, "# {}", step.at)?;
                here = Some(step.at);
            }
            write_op(f, &step.op)?;
        }
        Ok(())
    }
}

/// One value for each of the two namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Both<T> {
    /// Of the host's namespace.
    pub host: T,
    /// Of the pod's namespace.
    pub pod: T,
}

impl<T> Both<T> {
    /// The value of one of the namespaces.
    #[must_use]
    pub fn at(&self, place: Place) -> &T {
        match place {
            Place::Host => &self.host,
            Place::Pod => &self.pod,
        }
    }

    /// That of one place, to change it.
    pub fn at_mut(&mut self, place: Place) -> &mut T {
        match place {
            Place::Host => &mut self.host,
            Place::Pod => &mut self.pod,
        }
    }
}

/// A snapshot of both namespaces, as much of each as was asked for.
pub type PairFacts = Both<Facts>;

/// Two namespaces that can be read and changed: real ones or fakes.
pub trait KernelPair {
    /// Reads what is asked for.
    ///
    /// # Errors
    /// As [`crate::Kernel::gather`], and when a namespace cannot be entered.
    fn gather(&mut self, ask: &Both<Ask>) -> Result<PairFacts, KernelError>;

    /// Carries out steps in order and stops at the first that fails. As with [`crate::Kernel::execute`], some after the
    /// failed one may have taken effect.
    ///
    /// # Errors
    /// The first failure and the step it belongs to.
    fn execute(&mut self, steps: &[Step]) -> Result<(), Failure>;
}
