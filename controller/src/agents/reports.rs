//! What node agents last reported about launchers, by the node that the agent's own pod runs on.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use node_protocol::{LauncherReport, PodUid};

/// Reports by node and pod. An agent speaks for its own node alone: what it says of a pod elsewhere is never looked up.
#[derive(Debug, Default)]
pub(crate) struct Reports(RwLock<BTreeMap<String, BTreeMap<PodUid, LauncherReport>>>);

impl Reports {
    /// The last report on a pod by the agent of its node.
    pub(crate) fn of(&self, node: &str, pod: &str) -> Option<LauncherReport> {
        let pod: PodUid = pod.parse().ok()?;
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(node)?.get(&pod).cloned()
    }

    /// Every report, with the node whose agent made it.
    pub(crate) fn all(&self) -> Vec<(String, LauncherReport)> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().flat_map(|(node, of_node)| of_node.values().map(|report| (node.clone(), report.clone()))).collect()
    }

    /// Takes a report in; says whether it changes anything.
    pub(super) fn put(&self, node: &str, report: LauncherReport) -> bool {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let of_node = all.entry(node.to_owned()).or_default();
        if report.is_gone() {
            return of_node.remove(&report.pod_uid).is_some();
        }
        let previous = of_node.insert(report.pod_uid.clone(), report.clone());
        previous.as_ref() != Some(&report)
    }

    /// Forgets the pods of a node that are not in a full set; returns them.
    pub(super) fn keep(&self, node: &str, set: &[PodUid]) -> Vec<PodUid> {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let of_node = all.entry(node.to_owned()).or_default();
        let gone: Vec<_> = of_node.keys().filter(|uid| !set.contains(uid)).cloned().collect();
        gone.iter().for_each(|uid| drop(of_node.remove(uid)));
        gone
    }
}

#[cfg(test)]
mod tests {
    use protocol::control::{State, Status};

    use super::*;

    const POD: &str = "5d1f1c2e-1e0b-4b7c-9d1a-0c5b6a7d8e9f";

    fn report(state: State) -> LauncherReport {
        LauncherReport { status: Some(Status::new(state)), ..LauncherReport::new(POD.parse().unwrap(), "any") }
    }

    // spec: CTRL-11
    #[test]
    fn an_agent_speaks_only_for_pods_of_its_own_node() {
        let reports = Reports::default();
        assert!(reports.put("node1", report(State::Running)));
        assert!(!reports.put("node1", report(State::Running)));
        assert_eq!(reports.of("node1", POD), Some(report(State::Running)));
        assert_eq!(reports.of("node2", POD), None);
        assert!(reports.put("node2", report(State::Paused)));
        assert_eq!(reports.of("node1", POD), Some(report(State::Running)));
    }

    #[test]
    fn what_a_full_set_does_not_name_is_forgotten() {
        let reports = Reports::default();
        reports.put("node1", report(State::Running));
        assert_eq!(reports.keep("node1", &[POD.parse().unwrap()]), []);
        assert_eq!(reports.keep("node1", &[]), [POD.parse().unwrap()]);
        assert_eq!(reports.of("node1", POD), None);
        reports.put("node1", report(State::Running));
        assert!(reports.put("node1", LauncherReport::new(POD.parse().unwrap(), "node1")));
        assert_eq!(reports.of("node1", POD), None);
    }
}
