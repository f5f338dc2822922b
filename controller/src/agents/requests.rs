//! Requests to one launcher through its node's agent: a verb of the control protocol, or a stream of bytes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use node_protocol::names::{AGENT, AGENT_LABEL, EXPLAIN, PRESERVE, SERVER_NAME, STREAM_PROTOCOL, launcher_path};
use node_protocol::{ExplainRequest, PodUid};
use protocol::control::{Answer, Report, Verb};
use rustls::ClientConfig;
use serde_json::Value;
use tokio::sync::watch;

use super::Agent;
use super::stream::{StreamError, send};

/// Longest a launcher may take, with the way there and back.
const ANSWER: Duration = Duration::from_secs(20);
/// Longest answer that is read.
const MAX_ANSWER: usize = 128 << 10;

/// Why a launcher was not reached, or what it refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    /// The API server refused to list agents or did not answer.
    #[error("cannot find the agent of node {0}")]
    Api(String, #[source] kube::Error),
    /// No agent is ready there.
    #[error("node {0} has no agent that is ready")]
    NoAgent(String),
    /// This replica has no certificate for agents yet.
    #[error("this replica has no certificate for node agents yet")]
    NoCertificate,
    /// The agent was not reached.
    #[error("the agent of node {0} was not reached")]
    Connection(String, #[source] StreamError),
    /// The agent did not answer in time.
    #[error("the agent of node {0} did not answer in time")]
    Time(String),
    /// The agent could not do it: most often no launcher listens.
    #[error("{0}")]
    Agent(String),
    /// A client has the stream open.
    #[error("another client has it open")]
    Taken,
    /// The launcher refused, for example because the machine is paused already.
    #[error("{0}")]
    Refused(String),
}

impl AgentError {
    /// An answer that is not what was asked for.
    pub(super) fn unfit(error: &serde_json::Error) -> Self {
        Self::Agent(format!("the agent's answer is not understood: {error}"))
    }
}

/// One launcher pod and the way to it.
#[derive(Clone)]
pub(crate) struct LauncherClient {
    /// For the agent's address.
    pub(crate) client: Client,
    /// The agents' namespace.
    pub(crate) namespace: String,
    /// The certificate to show; `None` until it is made.
    pub(crate) tls: watch::Receiver<Option<Arc<ClientConfig>>>,
}

impl LauncherClient {
    /// Sends a verb to the launcher of a pod on a node; `fields` are those of the control request beyond its verb.
    ///
    /// # Errors
    /// The launcher was not reached, or refused.
    pub(crate) async fn ask(&self, node: &str, pod: &PodUid, verb: Verb, fields: &Value) -> Result<Report, AgentError> {
        let name = serde_json::to_value(verb).unwrap_or_default();
        let body = if fields.is_null() { Bytes::new() } else { fields.to_string().into() };
        let path = launcher_path(pod, name.as_str().unwrap_or_default());
        let answer = self.post(node, path, body).await?;
        match serde_json::from_slice(&answer) {
            Ok(Answer::Ok { ok, .. }) => Ok(ok),
            Ok(Answer::Error { error, .. }) => Err(AgentError::Refused(error)),
            Err(error) => Err(AgentError::unfit(&error)),
        }
    }

    /// Has the agent explain the network of a launcher's pod.
    ///
    /// # Errors
    /// The agent was not reached, or cannot.
    pub(crate) async fn explain(&self, node: &str, pod: &PodUid, vm: &ExplainRequest) -> Result<Value, AgentError> {
        let body = serde_json::to_vec(vm).unwrap_or_default();
        let answer = self.post(node, launcher_path(pod, EXPLAIN), body.into()).await?;
        serde_json::from_slice(&answer).map_err(|error| AgentError::unfit(&error))
    }

    /// Opens a stream of bytes to a launcher.
    ///
    /// # Errors
    /// The launcher was not reached.
    pub(crate) async fn stream(&self, node: &str, pod: &PodUid, name: &str) -> Result<TokioIo<Upgraded>, AgentError> {
        self.open(node, &launcher_path(pod, name)).await
    }

    /// The same, but [`AgentError::Taken`] when a client has such a stream open.
    ///
    /// # Errors
    /// The launcher was not reached, or the stream is taken.
    pub(crate) async fn free_stream(
        &self,
        node: &str,
        pod: &PodUid,
        name: &str,
    ) -> Result<TokioIo<Upgraded>, AgentError> {
        self.open(node, &format!("{}?{PRESERVE}", launcher_path(pod, name))).await
    }

    async fn open(&self, node: &str, path: &str) -> Result<TokioIo<Upgraded>, AgentError> {
        let request = Request::get(path).header(HOST, SERVER_NAME);
        let request = request.header(CONNECTION, "upgrade").header(UPGRADE, STREAM_PROTOCOL).body(Full::default());
        let open = async {
            let response = self.send(node, request).await?;
            if response.status() == StatusCode::CONFLICT {
                return Err(AgentError::Taken);
            }
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                let (_, text) = read(node, response, MAX_ANSWER).await?;
                return Err(AgentError::Agent(text_of(&text)));
            }
            let upgraded = hyper::upgrade::on(response).await;
            upgraded.map(TokioIo::new).map_err(|error| AgentError::Connection(node.to_owned(), error.into()))
        };
        tokio::time::timeout(ANSWER, open).await.map_err(|_| AgentError::Time(node.to_owned()))?
    }

    /// The body of an answer with code 200.
    async fn post(&self, node: &str, path: String, body: Bytes) -> Result<Bytes, AgentError> {
        let request = Request::post(path).header(HOST, SERVER_NAME).body(Full::new(body));
        let (status, text) = tokio::time::timeout(ANSWER, self.text(node, request))
            .await
            .map_err(|_| AgentError::Time(node.to_owned()))??;
        match status {
            StatusCode::OK => Ok(text),
            _ => Err(AgentError::Agent(text_of(&text))),
        }
    }

    async fn text(
        &self,
        node: &str,
        request: Result<Request<Full<Bytes>>, hyper::http::Error>,
    ) -> Result<(StatusCode, Bytes), AgentError> {
        read(node, self.send(node, request).await?, MAX_ANSWER).await
    }

    async fn send(
        &self,
        node: &str,
        request: Result<Request<Full<Bytes>>, hyper::http::Error>,
    ) -> Result<hyper::Response<hyper::body::Incoming>, AgentError> {
        ask(&self.agent_on(node).await?, &self.tls, request).await
    }

    async fn agent_on(&self, node: &str) -> Result<Agent, AgentError> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        let ours = ListParams::default().labels(&format!("{AGENT_LABEL}={AGENT}"));
        let found = pods.list(&ours.fields(&format!("spec.nodeName={node}"))).await;
        let found = found.map_err(|source| AgentError::Api(node.to_owned(), source))?;
        found.iter().find_map(Agent::of).ok_or_else(|| AgentError::NoAgent(node.to_owned()))
    }
}

/// Sends an agent a request, with the certificate of this replica.
pub(super) async fn ask(
    agent: &Agent,
    tls: &watch::Receiver<Option<Arc<ClientConfig>>>,
    request: Result<Request<Full<Bytes>>, hyper::http::Error>,
) -> Result<hyper::Response<hyper::body::Incoming>, AgentError> {
    let failed = |error: StreamError| AgentError::Connection(agent.node.clone(), error);
    let request = request.map_err(|error| failed(io::Error::other(error).into()))?;
    let tls = tls.borrow().clone().ok_or(AgentError::NoCertificate)?;
    send(agent.address, tls, request).await.map_err(failed)
}

/// The code and the body of an agent's answer, of at most so many bytes.
pub(super) async fn read(
    node: &str,
    response: hyper::Response<hyper::body::Incoming>,
    most: usize,
) -> Result<(StatusCode, Bytes), AgentError> {
    let status = response.status();
    let body = Limited::new(response.into_body(), most).collect().await;
    let body = body.map_err(|error| AgentError::Connection(node.to_owned(), io::Error::other(error).into()))?;
    Ok((status, body.to_bytes()))
}

/// What an agent says that refuses.
fn text_of(body: &Bytes) -> String {
    String::from_utf8_lossy(body).trim_end().to_owned()
}
