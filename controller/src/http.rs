//! The HTTP of a replica: health and metrics in the clear, admission over TLS.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use kube::Client;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use crate::admission::{self, Subject};
use crate::config::ClusterConfig;
use crate::eviction;
use crate::metrics;
use crate::migration;
use crate::monitor::Monitor;
use crate::tls::ServerCertificate;
use crate::uninstall;
use crate::vm::VirtualMachine;
use crate::vm::instancetype::resolve::{self, ExpandError};

/// Where the API server asks about objects.
const REVIEWS: [(&str, Subject); 3] = [
    ("/validate/virtualmachineinstances", Subject::Instance),
    ("/validate/virtualmachines", Subject::Machine),
    ("/validate/virtualmachineinstancereplicasets", Subject::ReplicaSet),
];
/// Where it asks about evictions of launcher pods.
const EVICTIONS: &str = "/validate/evictions";
/// Where it asks about migrations.
const MIGRATIONS: &str = "/validate/virtualmachineinstancemigrations";
/// Where it asks about deletions of the KubeVirt object.
const UNINSTALLATIONS: &str = "/validate/uninstallations";
/// Longest review: the API server takes objects of at most 3 MiB, and a review can hold two.
const MAX_BODY: usize = 8 << 20;
/// Longest a client may take for the header of a request.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// Pause after a connection that could not be accepted, most often for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(crate) type Answer = Response<Full<Bytes>>;

/// What a replica answers with.
pub(crate) struct Server {
    pub(crate) monitor: Arc<Monitor>,
    pub(crate) certificate: ServerCertificate,
    /// The API server, which is asked for the instancetypes and preferences of machines.
    pub(crate) client: Client,
    /// What instances are judged by; which engine runs them makes no difference to that.
    pub(crate) config: ClusterConfig,
}

/// Listens for /healthz, /readyz and /metrics; the future serves them, for ever.
///
/// # Errors
/// The system's, where the address is in use.
pub(crate) async fn serve_health(address: SocketAddr, server: Arc<Server>) -> io::Result<impl Future<Output = ()>> {
    let listener = TcpListener::bind(address).await?;
    Ok(async move {
        loop {
            let Some(stream) = accept(&listener).await else { continue };
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                serve(stream, |request| health(request, Arc::clone(&server))).await;
            });
        }
    })
}

/// Listens for the API server's reviews; the future answers them, for ever.
///
/// # Errors
/// The system's, where the address is in use.
pub(crate) async fn serve_admission(address: SocketAddr, server: Arc<Server>) -> io::Result<impl Future<Output = ()>> {
    let listener = TcpListener::bind(address).await?;
    Ok(async move {
        loop {
            let Some(stream) = accept(&listener).await else { continue };
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                match server.certificate.accept(stream, None).await {
                    Ok(stream) => serve(stream, |request| review(request, Arc::clone(&server))).await,
                    Err(error) => tracing::debug!(%error, "a client and the webhook do not agree on keys"),
                }
            });
        }
    })
}

pub(crate) async fn accept(listener: &TcpListener) -> Option<tokio::net::TcpStream> {
    match listener.accept().await {
        Ok((stream, _)) => Some(stream),
        Err(error) => {
            tracing::debug!(%error, "a connection is not accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Serves one connection. A request that is upgraded takes the connection over.
pub(crate) async fn serve<F: Future<Output = Answer> + Send + 'static>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    answer: impl Fn(Request<Incoming>) -> F + Send,
) {
    let service = service_fn(|request| {
        let answer = answer(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await {
        tracing::debug!(%error, "a connection broke off");
    }
}

async fn health(request: Request<Incoming>, server: Arc<Server>) -> Answer {
    match request.uri().path() {
        "/healthz" => plain(StatusCode::OK, "ok\n"),
        "/readyz" if server.certificate.is_ready() => plain(StatusCode::OK, "ok\n"),
        "/readyz" => plain(StatusCode::SERVICE_UNAVAILABLE, "the webhook has no certificate yet\n"),
        "/metrics" => {
            let mut answer = plain(StatusCode::OK, server.monitor.text().await);
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
            answer
        }
        _ => plain(StatusCode::NOT_FOUND, "not found\n"),
    }
}

/// A machine with what it names for its size and preference.
async fn expanded(client: &Client, vm: VirtualMachine) -> Result<VirtualMachine, Vec<String>> {
    let expanded = resolve::expand(client, &vm).await;
    expanded.map(|expanded| expanded.vm).map_err(|error| match error {
        ExpandError::Refused(complaints) => complaints,
        error @ ExpandError::Api(..) => vec![protocol::chain::chain(&error)],
    })
}

async fn review(request: Request<Incoming>, server: Arc<Server>) -> Answer {
    let path = request.uri().path();
    let subject = REVIEWS.iter().find(|(known, _)| *known == path).map(|(_, subject)| *subject);
    let of_client = [EVICTIONS, MIGRATIONS, UNINSTALLATIONS].into_iter().find(|known| *known == path);
    if request.method() != Method::POST || (subject.is_none() && of_client.is_none()) {
        return plain(StatusCode::NOT_FOUND, "not found\n");
    }
    let body = match Limited::new(request.into_body(), MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return plain(StatusCode::PAYLOAD_TOO_LARGE, format!("the review cannot be read: {error}\n")),
    };
    let answered = match (subject, of_client) {
        (Some(subject), _) => {
            admission::answer(subject, &body, &server.config, |vm| expanded(&server.client, vm)).await
        }
        (None, Some(MIGRATIONS)) => migration::admission::answer(&server.client, &body).await,
        (None, Some(UNINSTALLATIONS)) => uninstall::admission::answer(&server.client, &body).await,
        (None, _) => eviction::answer(&server.client, &body).await,
    };
    match answered {
        Ok(answer) => {
            let mut response = Response::new(Full::from(answer));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => plain(StatusCode::BAD_REQUEST, format!("this is no AdmissionReview: {error}\n")),
    }
}

/// An answer for people.
pub(crate) fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
