//! The agent's API: HTTPS with a certificate on both sides, on the pod's addresses.
//!
//! Guarantees: a client without a certificate that the cluster's authority signed for clients gets no answer; connections are
//! few; certificates are read for each connection, so that new ones count at once.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use node_protocol::{Followed, Line, PodUid, PodUidError, names};
use protocol::control::{Request as ControlRequest, Verb};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;

use crate::explain::Explainer;
use crate::health::FollowedVersion;
use crate::launchers::{Launchers, Reports, Stream as LauncherStream, counters};
use crate::tls;

/// A stream to a launcher is no connection any more: each launcher has one of each kind.
const MAX_CONNECTIONS: usize = 64;
/// Longest body of a request for an action.
const MAX_BODY: usize = 64 << 10;
/// How long a client may take for the handshake and for a request's head.
const PATIENCE: Duration = Duration::from_secs(10);
/// Lines that a client may have unread.
const UNREAD: usize = 16;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What the API answers from.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    /// What is known of launchers.
    pub(crate) reports: Arc<Reports>,
    /// The launchers themselves.
    pub(crate) launchers: Arc<Launchers>,
    /// What explains their networks.
    pub(crate) explainer: Explainer,
    /// Which configuration the controller follows, as it says.
    pub(crate) followed: FollowedVersion,
}

/// Serves the API until the process ends.
pub(crate) async fn serve(listener: TcpListener, certificates: PathBuf, api: Api) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to the API could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (certificates, api) = (certificates.clone(), api.clone());
        tokio::spawn(async move {
            if let Err(error) = connection(stream, &certificates, api).await {
                tracing::debug!(error = %protocol::chain::chain(&*error), "a connection to the API has ended");
            }
            drop(place);
        });
    }
}

async fn connection(
    stream: tokio::net::TcpStream,
    certificates: &Path,
    api: Api,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let config = match tls::for_own_clients(certificates) {
        Ok(config) => config,
        Err(error) => {
            tracing::warn!(folder = %certificates.display(), %error, "no certificate for the API yet");
            return Err(error.into());
        }
    };
    keep_alive(&stream)?;
    let accepted = tokio::time::timeout(PATIENCE, TlsAcceptor::from(Arc::new(config)).accept(stream)).await??;
    let answer = hyper::service::service_fn(move |request| {
        let api = api.clone();
        async move { Ok::<_, Infallible>(answer(request, &api).await) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    server.serve_connection(TokioIo::new(accepted), answer).with_upgrades().await?;
    Ok(())
}

/// A client that is gone without a word must not hold its place: the stream may be silent for long.
fn keep_alive(stream: &tokio::net::TcpStream) -> nix::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &30)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &10)?;
    setsockopt(stream, sockopt::TcpKeepCount, &3)
}

async fn answer(request: Request<Incoming>, api: &Api) -> Response<Body> {
    if let Some(path) = request.uri().path().strip_prefix(names::LAUNCHERS_PATH).filter(|path| !path.is_empty()) {
        let path = path.to_owned();
        return action(request, &path, api).await.unwrap_or_else(refused);
    }
    let reports = &api.reports;
    match (request.method(), request.uri().path(), request.uri().query()) {
        (&Method::GET, names::LAUNCHERS_PATH, query) => {
            let is_watch = query == Some(names::WATCH);
            if !is_watch && query.is_some() {
                return text(StatusCode::BAD_REQUEST, format!("the only query is {}\n", names::WATCH));
            }
            let frames = lines(Arc::clone(reports), is_watch);
            let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
            response
        }
        (&Method::GET, names::COUNTERS_PATH, None) => {
            let counters = counters::of_all(reports, &api.launchers).await;
            json(&counters).unwrap_or_else(refused)
        }
        (&Method::PUT, names::CONFIGURATION_PATH, None) => follow(request, &api.followed).await.unwrap_or_else(refused),
        (_, names::LAUNCHERS_PATH, _) => text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
        _ => {
            let paths = [names::LAUNCHERS_PATH, names::COUNTERS_PATH, names::CONFIGURATION_PATH].join(", ");
            text(StatusCode::NOT_FOUND, format!("there are only {paths}\n"))
        }
    }
}

type Refusal = (StatusCode, String);

fn refused((status, message): Refusal) -> Response<Body> {
    text(status, message + "\n")
}

/// Takes in which configuration the controller follows.
async fn follow(request: Request<Incoming>, version: &FollowedVersion) -> Result<Response<Body>, Refusal> {
    let bad = |message| (StatusCode::BAD_REQUEST, message);
    let body = body(request).await.map_err(bad)?;
    let followed: Followed = serde_json::from_slice(&body).map_err(|error| bad(format!("the body: {error}")))?;
    version.store(followed.resource_version, Ordering::Release);
    Ok(text(StatusCode::NO_CONTENT, String::new()))
}

/// Answers below a launcher's path: `/{pod UID}/{verb or stream}`.
async fn action(request: Request<Incoming>, path: &str, api: &Api) -> Result<Response<Body>, Refusal> {
    let launchers = &api.launchers;
    let mut parts = path.split('/').skip(1);
    let (Some(pod), Some(name), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err((StatusCode::NOT_FOUND, format!("there is only {}/POD-UID/VERB", names::LAUNCHERS_PATH)));
    };
    let pod: PodUid = pod.parse().map_err(|error: PodUidError| (StatusCode::BAD_REQUEST, error.to_string()))?;
    if request.method() == Method::GET {
        let unknown = || (StatusCode::NOT_FOUND, format!("there is no stream {name:?}"));
        return stream(request, pod, LauncherStream::of(name).ok_or_else(unknown)?, launchers).await;
    }
    if request.method() != Method::POST {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "only POST for a verb and GET for a stream".to_owned()));
    }
    let bad = |message| (StatusCode::BAD_REQUEST, message);
    let unreachable = |message| (StatusCode::BAD_GATEWAY, message);
    if name == names::EXPLAIN {
        let body = body(request).await.map_err(bad)?;
        let vm = serde_json::from_slice(&body).map_err(|error| bad(format!("the body: {error}")))?;
        return json(&api.explainer.explain(&pod, vm, launchers).await.map_err(unreachable)?);
    }
    let verb = verb(name).ok_or_else(|| (StatusCode::NOT_FOUND, format!("there is no verb {name:?}")))?;
    let asked = ask(request, verb).await.map_err(bad)?;
    json(&launchers.ask(&pod, &asked).await.map_err(unreachable)?)
}

fn json(answer: &impl Serialize) -> Result<Response<Body>, Refusal> {
    let json = serde_json::to_vec(answer).map_err(|error| (StatusCode::BAD_GATEWAY, error.to_string()))?;
    let mut response = Response::new(Full::new(Bytes::from(json)).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// A verb that has one answer. Programs in a guest are executed by probes alone, inside the pod.
fn verb(name: &str) -> Option<Verb> {
    let verb = serde_json::from_value(name.into()).ok()?;
    (!matches!(verb, Verb::Events | Verb::AgentExecute)).then_some(verb)
}

async fn body(request: Request<Incoming>) -> Result<Bytes, String> {
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|error| format!("the body cannot be read: {error}"))
}

/// The request for the launcher: the body's fields, with the verb of the path.
async fn ask(request: Request<Incoming>, verb: Verb) -> Result<ControlRequest, String> {
    let body = body(request).await?;
    let mut fields = match body.is_empty() {
        true => serde_json::Map::new(),
        false => serde_json::from_slice(&body).map_err(|error| format!("the body is no JSON object: {error}"))?,
    };
    fields.insert("id".to_owned(), 1.into());
    fields.insert("verb".to_owned(), serde_json::to_value(verb).map_err(|error| error.to_string())?);
    serde_json::from_value(fields.into()).map_err(|error| format!("the body: {error}"))
}

/// Connects to the launcher first: a client is answered 101 only when there is a stream.
async fn stream(
    mut request: Request<Incoming>,
    pod: PodUid,
    kind: LauncherStream,
    launchers: &Arc<Launchers>,
) -> Result<Response<Body>, Refusal> {
    if request.headers().get(UPGRADE).is_none_or(|value| value != names::STREAM_PROTOCOL) {
        return Err((StatusCode::UPGRADE_REQUIRED, format!("expected Upgrade: {}", names::STREAM_PROTOCOL)));
    }
    if request.uri().query() == Some(names::PRESERVE) && launchers.is_open(&pod, kind) {
        return Err((StatusCode::CONFLICT, "a client has this stream open".to_owned()));
    }
    let launcher = launchers.connect(&pod, kind).await;
    let launcher = launcher.map_err(|error| (StatusCode::BAD_GATEWAY, format!("{kind:?}: {error}")))?;
    let (upgrade, launchers) = (hyper::upgrade::on(&mut request), Arc::clone(launchers));
    tokio::spawn(async move {
        match upgrade.await {
            Ok(client) => launchers.join(pod, kind, launcher, TokioIo::new(client)).await,
            Err(error) => tracing::debug!(%error, "a stream to a launcher was not opened"),
        }
    });
    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, String::new());
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(names::STREAM_PROTOCOL));
    Ok(response)
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    *response.status_mut() = status;
    response
}

/// The stream's lines, made as the client reads: a slow one skips what is outdated.
fn lines(reports: Arc<Reports>, is_watch: bool) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
    let (sender, receiver) = mpsc::channel::<Bytes>(UNREAD);
    tokio::spawn(async move {
        let mut changes = reports.changes();
        let mut sent = BTreeMap::new();
        // Before kubelet's folder was read, an empty set would say that there are no launchers.
        if changes.wait_for(|version| *version > 0).await.is_err() {
            return;
        }
        let mut is_synced = false;
        loop {
            changes.mark_unchanged();
            for report in reports.unsent(&mut sent) {
                if sender.send(Line::Report(Box::new(report)).to_bytes().into()).await.is_err() {
                    return;
                }
            }
            if !is_synced && sender.send(Line::Synced { synced: true }.to_bytes().into()).await.is_err() {
                return;
            }
            is_synced = true;
            if !is_watch {
                return;
            }
            let closed = tokio::select! {
                changed = changes.changed() => changed.is_err(),
                () = sender.closed() => true,
            };
            if closed {
                return;
            }
        }
    });
    ReceiverStream::new(receiver).map(|line| Ok(Frame::data(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: NODE-8
    #[test]
    fn verbs_of_the_control_socket_with_one_answer_are_offered() {
        for name in
            ["status", "counters", "powerdown", "stop", "pause", "resume", "reset", "agentInfo", "freeze", "unfreeze"]
        {
            assert!(verb(name).is_some(), "{name}");
        }
        for name in ["events", "agentExecute", "Status", "", "console"] {
            assert_eq!(verb(name), None, "{name}");
        }
    }
}
