//! The control socket's words, for both ends, and its client.

use serde::{Deserialize, Serialize};

pub use crate::ask::ask;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verb {
    /// What the machine is and does.
    Status,
    /// One press of the power button.
    Powerdown,
    /// Power off within the grace period, or be ended.
    Stop,
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
    /// Start anew.
    Reset,
    /// From now on everything that happens, a line each.
    Events,
}

/// The machine's state as others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Not a single instruction yet.
    Starting,
    /// The processors run.
    Running,
    /// The processors stand.
    Paused,
    /// It was asked to power off.
    Stopping,
}
