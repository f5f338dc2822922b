//! Explains the network of a launcher's pod: what `tapvisor explain` shows of a VM on one machine.
//!
//! Flow: the agent's API → [`Explainer`] finds the pod's network namespace in the runtime and asks the launcher for its status →
//! the socket of [`serve`], a process in the host's network namespace, in a pod of its own → a child for this task, [`one`],
//! opens the namespace, reads both, diagnoses.
//! Guarantees: the agent needs no capability for it; a child writes nothing and sends nothing, has a limit of time and memory and
//! ends with its task; it enters no namespace of a pod but the network's; its answer has at most
//! [`MAX_EXPLANATION_BYTES`](node_protocol::MAX_EXPLANATION_BYTES).

mod ask;
mod child;
mod server;

use node_protocol::ExplainRequest;
use protocol::control::Status;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use ask::Explainer;
pub(crate) use child::one;
pub(crate) use server::serve;

/// Where the agent asks, in a folder that only root can enter.
pub(crate) const SOCKET: &str = "/run/tapvisor/explain.sock";

/// What a child is to explain.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Task {
    /// The VM as the controller knows it.
    vm: ExplainRequest,
    /// The node that it runs on.
    node: String,
    /// The name of its network namespace in the runtime's folder.
    namespace: String,
    /// What its launcher says; why not, if it does not.
    launcher: Result<Box<Status>, String>,
}

/// What a child answers: an explanation, or why there is none.
type TaskAnswer = Result<Value, String>;
