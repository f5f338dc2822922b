//! What is known of every launcher, and who waits for changes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use node_protocol::{LauncherReport, PodUid};
use tokio::sync::watch;

/// The last report of each pod. A client that is slow gets the newest, not each.
#[derive(Debug)]
pub(crate) struct Reports {
    node: String,
    known: Mutex<BTreeMap<PodUid, LauncherReport>>,
    /// Counts changes; 0 until kubelet's folder was read for the first time.
    version: watch::Sender<u64>,
}

impl Reports {
    /// No report yet.
    #[must_use]
    pub(crate) fn new(node: &str) -> Self {
        Self { node: node.to_owned(), known: Mutex::default(), version: watch::Sender::new(0) }
    }

    /// Replaces what is known of a pod by what `change` makes of it.
    pub(crate) fn update(&self, pod: &PodUid, change: impl FnOnce(&mut LauncherReport)) {
        let mut known = self.lock();
        let fresh = || LauncherReport::new(pod.clone(), &self.node);
        let report = known.entry(pod.clone()).or_insert_with(fresh);
        let before = report.clone();
        change(report);
        let is_changed = *report != before;
        drop(known);
        if is_changed {
            self.version.send_modify(|version| *version += 1);
        }
    }

    /// Forgets a pod.
    pub(super) fn forget(&self, pod: &PodUid) {
        let known = self.lock().remove(pod).is_some();
        if known {
            self.version.send_modify(|version| *version += 1);
        }
    }

    /// Says that all launchers were found that there are now.
    pub(super) fn synced(&self) {
        self.version.send_if_modified(|version| {
            let is_first = *version == 0;
            *version = (*version).max(1);
            is_first
        });
    }

    /// A counter that grows with every change.
    #[must_use]
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// The reports that `sent` does not hold, and one without content for each pod in it that is gone; `sent` holds them then.
    pub(crate) fn unsent(&self, sent: &mut BTreeMap<PodUid, LauncherReport>) -> Vec<LauncherReport> {
        let known = self.lock().clone();
        let gone = sent.keys().filter(|pod| !known.contains_key(*pod));
        let gone: Vec<_> = gone.map(|pod| LauncherReport::new(pod.clone(), &self.node)).collect();
        let changed = known.values().filter(|report| sent.get(&report.pod_uid) != Some(report)).cloned();
        let unsent =
            gone.into_iter().chain(changed).filter(|report| sent.contains_key(&report.pod_uid) || !report.is_gone());
        let unsent = unsent.collect();
        *sent = known;
        unsent
    }

    /// The pods whose launcher answers and has not ended.
    pub(super) fn answering(&self) -> Vec<PodUid> {
        let is_answering =
            |report: &&LauncherReport| report.status.is_some() && report.outcome.is_none() && report.problem.is_none();
        self.lock().values().filter(is_answering).map(|report| report.pod_uid.clone()).collect()
    }

    /// How many launchers have not said that they have ended.
    pub(crate) fn running(&self) -> usize {
        self.lock().values().filter(|report| report.outcome.is_none() && !report.is_gone()).count()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PodUid, LauncherReport>> {
        // A map of values is whole after every step.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_a_full_set_then_changes_then_that_a_pod_is_gone() {
        let reports = Reports::new("node1");
        let pod: PodUid = super::super::folder::tests::POD.parse().unwrap();
        let changes = reports.changes();
        let mut sent = BTreeMap::new();
        assert_eq!(reports.unsent(&mut sent), []);
        reports.synced();
        assert!(changes.has_changed().unwrap());
        reports.update(&pod, |report| report.problem = Some("no launcher".to_owned()));
        let first = reports.unsent(&mut sent);
        assert_eq!((first.len(), first[0].problem.as_deref(), &*first[0].node_name), (1, Some("no launcher"), "node1"));
        assert_eq!(reports.unsent(&mut sent), []);
        let version = *changes.borrow();
        reports.update(&pod, |_| {});
        assert_eq!(*changes.borrow(), version, "what is the same is no change");
        reports.forget(&pod);
        let last = reports.unsent(&mut sent);
        assert!(last.len() == 1 && last[0].is_gone());
        assert_eq!(reports.unsent(&mut sent), []);
    }
}
