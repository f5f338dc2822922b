//! What the agent is told of a VM whose network it is to explain. Its answer is the JSON of crate `explain`'s `Explanation`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest answer, in bytes.
pub const MAX_EXPLANATION_BYTES: usize = 96 << 10;

/// A VM as the controller knows it: the body of `POST /v1/launchers/UID/explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainRequest {
    /// Namespace of the instance.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whether a VirtualMachine keeps it, which starts it again.
    pub has_machine: bool,
    /// Name of its launcher pod.
    pub pod: String,
    /// Where it is in its life.
    pub phase: ExplainPhase,
    /// Addresses of its pod.
    pub addresses: Vec<IpAddr>,
    /// When the guest began to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_since_unix_seconds: Option<u64>,
    /// The wiring request in the pod's annotations.
    pub wiring: Value,
}

/// Phases of an instance whose launcher runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ExplainPhase {
    /// The guest does not run yet.
    Starting,
    /// It runs.
    Running,
    /// Its processors are halted on request.
    Paused,
}
