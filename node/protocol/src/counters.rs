//! What the launchers of a node have used, of all at once: the answer to `GET /v1/counters`.
//!
//! Guarantees: the pod is the folder that the launcher's socket lies in. A launcher that does not answer, or is of a release
//! without counters, is missing.

use protocol::counters::Counters;
use serde::{Deserialize, Serialize};

use crate::PodUid;

/// Longest answer, in bytes: a node has at most a few hundred launchers.
pub const MAX_COUNTERS_BYTES: usize = 4 << 20;

/// The launchers of a node that answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeCounters {
    /// In any order.
    pub launchers: Vec<LauncherCounters>,
}

/// What one launcher answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LauncherCounters {
    /// Its pod.
    pub pod_uid: PodUid,
    /// What its machine has used.
    pub counters: Counters,
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: OPS-1
    #[test]
    fn counters_have_the_documented_text_and_later_ones_are_read() {
        let pod_uid: PodUid = "5d1f1c2e-1e0b-4b7c-9d1a-0c5b6a7d8e9f".parse().unwrap();
        let counters = Counters { memory_bytes: 1 << 20, ..Counters::default() };
        let node = NodeCounters { launchers: vec![LauncherCounters { pod_uid, counters }] };
        let text = serde_json::to_string(&node).unwrap();
        assert_eq!(text, include_str!("../tests/golden/counters.txt").trim_end());
        let later = text.replacen('{', r#"{"later":1,"#, 1).replace(r#""nics":[]"#, r#""swapBytes":1"#);
        assert_eq!(serde_json::from_str::<NodeCounters>(&later).unwrap(), node);
    }
}
