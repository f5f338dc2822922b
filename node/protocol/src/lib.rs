//! What the node agent and its clients agree on: the types of the agent's API and the names both use.

pub mod names;

mod counters;
mod explain;
mod followed;
mod pod_uid;
mod report;

pub use counters::{LauncherCounters, MAX_COUNTERS_BYTES, NodeCounters};
pub use explain::{ExplainPhase, ExplainRequest, MAX_EXPLANATION_BYTES};
pub use followed::{Followed, Health};
pub use pod_uid::{PodUid, PodUidError};
pub use report::{LauncherReport, Line, LineError, MAX_LINE_BYTES};
