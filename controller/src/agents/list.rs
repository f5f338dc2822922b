//! The agents that can be asked now, and what their launchers have used.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use node_protocol::names::{COUNTERS_PATH, SERVER_NAME};
use node_protocol::{MAX_COUNTERS_BYTES, NodeCounters};
use rustls::ClientConfig;
use tokio::sync::watch;

use super::Agent;
use super::requests::{self, AgentError};
use super::stream::StreamError;

/// Longest an agent may take: less than Prometheus waits for a scrape.
const ANSWER: Duration = Duration::from_secs(6);

/// The ready agents.
pub(crate) struct AgentList {
    agents: Mutex<Vec<Agent>>,
    tls: watch::Receiver<Option<Arc<ClientConfig>>>,
}

impl AgentList {
    /// None yet; `tls` is the certificate to show them.
    pub(crate) fn new(tls: watch::Receiver<Option<Arc<ClientConfig>>>) -> Self {
        Self { agents: Mutex::default(), tls }
    }

    /// These are ready now.
    pub(super) fn set<'a>(&self, agents: impl Iterator<Item = &'a Agent>) {
        // One for each node: while an agent is replaced there may be two.
        let agents: BTreeMap<_, _> = agents.map(|agent| (agent.node.clone(), agent.clone())).collect();
        *self.agents.lock().unwrap_or_else(PoisonError::into_inner) = agents.into_values().collect();
    }

    /// The agents.
    pub(crate) fn all(&self) -> Vec<Agent> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the launchers of an agent's node have used. An agent of a release without counters has none.
    ///
    /// # Errors
    /// The agent was not reached, or answers something else.
    pub(crate) async fn counters(&self, agent: &Agent) -> Result<NodeCounters, AgentError> {
        let node = &agent.node;
        let asked = tokio::time::timeout(ANSWER, self.ask(agent)).await;
        match asked.map_err(|_| AgentError::Time(node.clone()))?? {
            (StatusCode::OK, answer) => serde_json::from_slice(&answer).map_err(|error| AgentError::unfit(&error)),
            (StatusCode::NOT_FOUND, _) => Ok(NodeCounters::default()),
            (status, _) => Err(AgentError::Connection(node.clone(), StreamError::Status(status))),
        }
    }

    async fn ask(&self, agent: &Agent) -> Result<(StatusCode, Bytes), AgentError> {
        let request = Request::get(COUNTERS_PATH).header(HOST, SERVER_NAME).body(Full::default());
        let answer = requests::ask(agent, &self.tls, request).await?;
        requests::read(&agent.node, answer, MAX_COUNTERS_BYTES).await
    }
}
