//! The node agents: the leading replica reads the stream of each, and a change leads to a pass over the pod's instance.
//!
//! Guarantees: an agent speaks only for pods that the API server has placed on its own node. Without an agent an instance's
//! phases come from its pod alone.

mod followed;
mod list;
mod reports;
mod requests;
mod stream;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use node_protocol::names::{AGENT, AGENT_LABEL};
use node_protocol::{Line, PodUid};
use rustls::ClientConfig;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub(crate) use list::AgentList;
pub(crate) use reports::Reports;
pub(crate) use requests::{AgentError, LauncherClient};

use crate::metrics::Metrics;

const RETRY: Duration = Duration::from_secs(2);

/// What the streams of all agents need.
#[derive(Clone)]
pub(crate) struct Agents {
    /// Where reports are kept.
    pub(crate) reports: Arc<Reports>,
    /// Gets the UID of each pod whose report changed.
    pub(crate) changed: mpsc::UnboundedSender<PodUid>,
    /// The certificate to show and the authorities to trust; `None` until they are made.
    pub(crate) tls: watch::Receiver<Option<Arc<ClientConfig>>>,
    /// The agents that are ready.
    pub(crate) list: Arc<AgentList>,
    /// Counts the streams.
    pub(crate) metrics: Arc<Metrics>,
    /// The version of the KubeVirt object that was looked at last, which agents are told.
    pub(crate) followed: watch::Receiver<Option<u64>>,
}

/// A stream that is read, and an agent that is told the version of the configuration, until this is dropped.
struct Reading {
    agent: Agent,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// An agent's pod that can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Agent {
    pub(crate) node: String,
    address: IpAddr,
}

impl Agent {
    fn of(pod: &Pod) -> Option<Self> {
        let status = pod.status.as_ref()?;
        let mut conditions = status.conditions.iter().flatten();
        let is_ready = conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let is_leaving = pod.metadata.deletion_timestamp.is_some();
        let node = pod.spec.as_ref()?.node_name.clone()?;
        let address = status.pod_ip.as_ref()?.parse().ok()?;
        (is_ready && !is_leaving).then_some(Self { node, address })
    }
}

impl Agents {
    /// Follows the agents' pods of a namespace and reads each one's stream, for ever.
    pub(crate) async fn follow(self, client: Client, namespace: &str) {
        let pods = Api::<Pod>::namespaced(client, namespace);
        let config = watcher::Config::default().labels(&format!("{AGENT_LABEL}={AGENT}"));
        let mut events = std::pin::pin!(watcher(pods, config).default_backoff().touched_objects());
        let mut streams: BTreeMap<String, Reading> = BTreeMap::new();
        while let Some(event) = events.next().await {
            let pod = match event {
                Ok(pod) => pod,
                Err(error) => {
                    tracing::debug!(%error, "node agents cannot be watched");
                    continue;
                }
            };
            let (name, agent) = (pod.name_any(), Agent::of(&pod));
            if streams.get(&name).map(|stream| &stream.agent) == agent.as_ref() {
                continue;
            }
            streams.remove(&name);
            if let Some(agent) = agent {
                let told = followed::tell(agent.clone(), self.tls.clone(), self.followed.clone());
                let tasks = [tokio::spawn(self.clone().read(agent.clone())), tokio::spawn(told)];
                streams.insert(name, Reading { agent, tasks });
            }
            self.list.set(streams.values().map(|stream| &stream.agent));
        }
    }

    /// Reads one agent's stream again and again.
    async fn read(mut self, agent: Agent) {
        loop {
            let tls = match self.tls.wait_for(Option::is_some).await {
                Ok(tls) => tls.clone(),
                Err(_) => return,
            };
            let Some(tls) = tls else { continue };
            let mut full_set = Some(Vec::new());
            let mut counted = None;
            let on_line = |line: Line| {
                if matches!(line, Line::Synced { .. }) {
                    counted = Some(self.metrics.agent_stream());
                }
                self.take(&agent.node, line, &mut full_set);
            };
            let error = stream::read(agent.address, tls, on_line).await;
            drop(counted);
            let reason = protocol::chain::chain(&error);
            tracing::info!(node = agent.node, reason, "the stream of a node agent ended and is opened again");
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Takes a line in. `full_set` holds the pods that were named before the stream was complete.
    fn take(&self, node: &str, line: Line, full_set: &mut Option<Vec<PodUid>>) {
        let changed = match line {
            Line::Report(report) => {
                let pod = report.pod_uid.clone();
                full_set.iter_mut().for_each(|set| set.push(pod.clone()));
                if self.reports.put(node, *report) { vec![pod] } else { Vec::new() }
            }
            Line::Synced { .. } => full_set.take().map(|set| self.reports.keep(node, &set)).unwrap_or_default(),
        };
        // Without a receiver the program ends.
        changed.into_iter().for_each(|pod| drop(self.changed.send(pod)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use node_protocol::LauncherReport;
    use protocol::control::{State, Status};
    use serde_json::json;

    #[test]
    fn only_a_ready_agent_with_a_node_and_an_address_is_asked() {
        let pod = |ready: &str, ip: Option<&str>| -> Pod {
            let conditions = json!([{"type": "Ready", "status": ready}]);
            serde_json::from_value(json!({"spec": {"nodeName": "node1", "containers": []}, "status": {"podIP": ip, "conditions": conditions}})).unwrap()
        };
        let agent = Agent { node: "node1".to_owned(), address: "10.244.1.2".parse().unwrap() };
        assert_eq!(Agent::of(&pod("True", Some("10.244.1.2"))), Some(agent));
        assert_eq!(Agent::of(&pod("False", Some("10.244.1.2"))), None);
        assert_eq!(Agent::of(&pod("True", None)), None);
    }

    // spec: CTRL-11
    #[test]
    fn a_stream_that_begins_again_forgets_launchers_that_are_gone() {
        let (changed, mut told) = mpsc::unbounded_channel();
        let tls = watch::channel(None).1;
        let list = Arc::new(AgentList::new(tls.clone()));
        let followed = watch::channel(None).1;
        let agents = Agents { reports: Arc::default(), changed, tls, list, metrics: Arc::default(), followed };
        let pod: PodUid = "5d1f1c2e-1e0b-4b7c-9d1a-0c5b6a7d8e9f".parse().unwrap();
        let running =
            LauncherReport { status: Some(Status::new(State::Running)), ..LauncherReport::new(pod.clone(), "node1") };
        let mut full_set = Some(Vec::new());
        for line in [Line::Report(Box::new(running)), Line::Synced { synced: true }] {
            agents.take("node1", line, &mut full_set);
        }
        assert_eq!(told.try_recv(), Ok(pod.clone()));
        assert!(told.try_recv().is_err() && agents.reports.of("node1", pod.as_str()).is_some());
        agents.take("node1", Line::Synced { synced: true }, &mut Some(Vec::new()));
        assert_eq!(told.try_recv(), Ok(pod.clone()));
        assert_eq!(agents.reports.of("node1", pod.as_str()), None);
    }
}
