//! The agents that can be asked now, and what their launchers have used.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use node_protocol::names::{COUNTERS_PATH, SERVER_NAME};
use node_protocol::{MAX_COUNTERS_BYTES, NodeCounters};
use rustls::ClientConfig;
use tokio::sync::watch;

use super::Agent;
use super::requests::AgentError;
use super::stream::{StreamError, send};

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
        let answer = asked.map_err(|_| AgentError::Time(node.clone()))??;
        let Some(answer) = answer else { return Ok(NodeCounters::default()) };
        let unfit = |error| AgentError::Agent(format!("the agent's answer is not understood: {error}"));
        serde_json::from_slice(&answer).map_err(unfit)
    }

    async fn ask(&self, agent: &Agent) -> Result<Option<Bytes>, AgentError> {
        let failed = |error: StreamError| AgentError::Connection(agent.node.clone(), error);
        let other = |error| failed(io::Error::other(error).into());
        let tls = self.tls.borrow().clone().ok_or(AgentError::NoCertificate)?;
        let request = Request::get(COUNTERS_PATH).header(HOST, SERVER_NAME).body(Empty::<Bytes>::new());
        let request = request.map_err(|error| failed(io::Error::other(error).into()))?;
        let response = send(agent.address, tls, request).await.map_err(failed)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            status => return Err(failed(StreamError::Status(status))),
        }
        let body = Limited::new(response.into_body(), MAX_COUNTERS_BYTES).collect().await.map_err(other)?;
        Ok(Some(body.to_bytes()))
    }
}
