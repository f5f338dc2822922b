//! Each agent is told which version of the KubeVirt object is followed: clients that changed it ask the agents, as KubeVirt's.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use node_protocol::Followed;
use node_protocol::names::{CONFIGURATION_PATH, SERVER_NAME};
use rustls::ClientConfig;
use tokio::sync::watch;

use super::requests::{self, AgentError};
use super::stream::StreamError;
use super::{Agent, RETRY};

/// Longest an agent may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Tells an agent every version, until one that is of a release without this says so.
pub(super) async fn tell(
    agent: Agent,
    mut tls: watch::Receiver<Option<Arc<ClientConfig>>>,
    mut versions: watch::Receiver<Option<u64>>,
) {
    // Without the senders the program ends.
    while tls.wait_for(Option::is_some).await.is_ok() {
        let Ok(version) = versions.wait_for(Option::is_some).await.map(|version| version.unwrap_or_default()) else {
            return;
        };
        let told = tokio::time::timeout(ANSWER, put(&agent, &tls, version)).await;
        match told.unwrap_or_else(|_| Err(AgentError::Time(agent.node.clone()))) {
            Ok(StatusCode::NOT_FOUND) => return,
            Ok(_) => {
                let is_later = |later: &Option<u64>| later.is_some_and(|later| later != version);
                if versions.wait_for(is_later).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                let reason = protocol::chain::chain(&error);
                tracing::debug!(node = agent.node, reason, "an agent is not told the configuration's version yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn put(
    agent: &Agent,
    tls: &watch::Receiver<Option<Arc<ClientConfig>>>,
    resource_version: u64,
) -> Result<StatusCode, AgentError> {
    let body = serde_json::to_vec(&Followed { resource_version }).unwrap_or_default();
    let request = Request::put(CONFIGURATION_PATH).header(HOST, SERVER_NAME).body(Full::new(body.into()));
    match requests::ask(agent, tls, request).await?.status() {
        status @ (StatusCode::NO_CONTENT | StatusCode::NOT_FOUND) => Ok(status),
        status => Err(AgentError::Connection(agent.node.clone(), StreamError::Status(status))),
    }
}
