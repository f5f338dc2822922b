//! The answer to `GET /metrics`: counters of this replica, and while it leads, what it knows of machines, launchers and agents.
//!
//! Flow: a scrape → every agent is asked once for the counters of its launchers → families → text.
//! Guarantees: instances are exported by one replica alone; an agent counts for pods that the API server has placed on its own
//! node; however often a client scrapes, agents are asked every few seconds at most, and one that hangs costs its own counters.

mod machines;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::Store;
use protocol::counters::Counters;
use tokio::sync::watch;

use crate::agents::{AgentList, Reports};
use crate::config::ClusterConfig;
use crate::metrics::{self, Metrics};
use crate::objects::VirtualMachineInstance;
use crate::vm::VirtualMachine;
use machines::{Place, Seen};

/// How long the counters of launchers are answered again without asking.
const FRESH: Duration = Duration::from_secs(5);
/// How many agents are asked at once.
const AT_ONCE: usize = 32;

/// What the leading replica knows.
pub(crate) struct Sources {
    /// Launcher pods.
    pub(crate) pods: Store<Pod>,
    /// What agents say of launchers.
    pub(crate) reports: Arc<Reports>,
    /// The configuration in force.
    pub(crate) config: watch::Receiver<ClusterConfig>,
    /// The agents that can be asked.
    pub(crate) agents: Arc<AgentList>,
}

/// The caches of its controllers.
struct Caches {
    instances: Store<VirtualMachineInstance>,
    machines: Store<VirtualMachine>,
}

/// What launchers have used, and which agents have answered.
#[derive(Debug, Clone, Default)]
struct Counted {
    agents: BTreeMap<String, bool>,
    counters: BTreeMap<Place, Counters>,
}

/// Answers scrapes.
pub(crate) struct Monitor {
    metrics: Arc<Metrics>,
    sources: Mutex<Option<Arc<Sources>>>,
    caches: Mutex<Option<Caches>>,
    /// When the agents were last asked, and what they said.
    counted: tokio::sync::Mutex<Option<(Instant, Counted)>>,
}

impl Monitor {
    /// For a replica that does not lead yet.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, sources: Mutex::default(), caches: Mutex::default(), counted: tokio::sync::Mutex::default() }
    }

    /// This replica leads and knows of these launchers.
    pub(crate) fn follow(&self, sources: Sources) {
        *self.sources.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(sources));
    }

    /// The caches of the controllers that it runs.
    pub(crate) fn follow_caches(&self, instances: Store<VirtualMachineInstance>, machines: Store<VirtualMachine>) {
        *self.caches.lock().unwrap_or_else(PoisonError::into_inner) = Some(Caches { instances, machines });
    }

    /// It leads no more.
    pub(crate) async fn forget(&self) {
        *self.sources.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.caches.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.counted.lock().await = None;
    }

    /// The text of an answer.
    pub(crate) async fn text(&self) -> String {
        let mut families = self.metrics.families();
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(sources) = sources {
            let Counted { agents, counters } = self.counted(&sources.agents).await;
            families.extend(machines::families(&self.seen(&sources, agents, counters)));
        }
        metrics::text(families)
    }

    fn seen(&self, sources: &Sources, agents: BTreeMap<String, bool>, counters: BTreeMap<Place, Counters>) -> Seen {
        let caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        let (machines, instances) =
            caches.as_ref().map(|caches| (caches.machines.state(), caches.instances.state())).unwrap_or_default();
        let reports = sources.reports.all().into_iter();
        let reports = reports.map(|(node, report)| ((node, report.pod_uid.as_str().to_owned()), report)).collect();
        let config = Some(sources.config.borrow().clone());
        Seen { machines, instances, pods: sources.pods.state(), agents, reports, counters, config }
    }

    /// Clients that scrape at the same time wait for one answer.
    #[expect(clippy::disallowed_methods, reason = "the edge: how old an answer is")]
    async fn counted(&self, agents: &AgentList) -> Counted {
        let mut counted = self.counted.lock().await;
        if let Some((at, fresh)) = counted.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            tracing::trace!(age = ?at.elapsed(), "counters are answered again");
            return fresh.clone();
        }
        let now = ask(agents).await;
        *counted = Some((Instant::now(), now.clone()));
        now
    }
}

/// Asks every agent.
async fn ask(agents: &AgentList) -> Counted {
    let asked = agents.all().into_iter().map(|agent| async move {
        let counters = agents.counters(&agent).await;
        (agent.node, counters)
    });
    let mut answers = futures_util::stream::iter(asked).buffer_unordered(AT_ONCE);
    let mut counted = Counted::default();
    while let Some((node, answer)) = answers.next().await {
        match answer {
            Ok(answer) => {
                let launchers = answer.launchers.into_iter();
                let placed = launchers.map(|one| ((node.clone(), one.pod_uid.into()), one.counters));
                counted.counters.extend(placed);
                counted.agents.insert(node, true);
            }
            Err(error) => {
                tracing::info!(node, reason = protocol::chain::chain(&error), "no counters of launchers");
                counted.agents.insert(node, false);
            }
        }
    }
    counted
}
