//! The launch file: a machine and the network it must find in its namespace.

use machine::Machine;
use serde::{Deserialize, Serialize};
use wiring::Request;

/// What `tapvisor-launcher launch --machine FILE` reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LaunchFile {
    /// Always 1.
    pub version: u32,
    /// The machine to run.
    pub machine: Machine,
    /// The network it must find in its namespace.
    pub wiring: Request,
}

impl LaunchFile {
    /// The only version there is.
    pub const VERSION: u32 = 1;

    /// The file of a machine on its network.
    #[must_use]
    pub fn new(machine: Machine, wiring: Request) -> Self {
        Self { version: Self::VERSION, machine, wiring }
    }
}
