//! Follows the launchers of the node: finds their sockets, asks them, and keeps what they last said.
//!
//! Flow: kubelet's folders of pods → a task per pod with a launcher's socket → [`Reports`] → clients of the agent's API.
//! Guarantees: the pod is the folder's name; no link is followed, nothing outside the pod's folder is opened; what a launcher
//! sends is bounded in size and rate. Assumption: kubelet's folder is mounted at the same path, for reading.

mod actions;
mod conversation;
pub(crate) mod counters;
mod folder;
mod reports;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use node_protocol::PodUid;
use tokio::task::JoinHandle;

pub(crate) use actions::{Launchers, Stream};
pub(crate) use reports::Reports;

/// How often kubelet's folders are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Follows all launchers below `pods`, kubelet's folder of pods, until the process ends.
pub(crate) async fn follow(pods: PathBuf, reports: Arc<Reports>) {
    let mut tasks: BTreeMap<PodUid, JoinHandle<()>> = BTreeMap::new();
    loop {
        let found = match folder::pods(&pods) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(folder = %pods.display(), %error, "kubelet's folder of pods cannot be read, retrying");
                tokio::time::sleep(LOOK).await;
                continue;
            }
        };
        for pod in &found {
            let task = || tokio::spawn(conversation::follow(pods.clone(), pod.clone(), Arc::clone(&reports)));
            tasks.entry(pod.clone()).or_insert_with(task);
        }
        let gone: Vec<_> = tasks.keys().filter(|pod| !found.contains(pod)).cloned().collect();
        for pod in gone {
            if let Some(task) = tasks.remove(&pod) {
                task.abort();
                // A task that is cut off in the middle of a report must not write it after the pod is forgotten.
                drop(task.await);
            }
            reports.forget(&pod);
        }
        reports.synced();
        tokio::time::sleep(LOOK).await;
    }
}
