//! A conformance suite for CNI plugins: runs any plugin binary as a container runtime would and says what it holds to.
//!
//! Flow: a [`Subject`] (data) × a [`Group`] of checks × each cniVersion → [`Findings`] → one cell of the [`Table`].
//! Every case has a node of its own (network and mount namespaces that die with their thread), so cases leave nothing
//! behind and cannot see each other. Checks look at the kernel through `ip`, `nft` and `tc`, never through our own code.

mod attachment;
mod call;
mod facts;
mod findings;
mod groups;
mod node;
pub mod proofs;
mod results;
mod stepper;
mod subject;
mod subjects;
mod table;
mod trouble;

pub use groups::{Effort, GROUPS, Group, run_group};
pub use subject::{Build, Role, Subject};
pub use subjects::all as subjects;
pub use table::{Cell, Table, results_file};
pub use trouble::Trouble;
