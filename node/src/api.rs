//! The agent's API: HTTPS with a certificate on both sides, on the pod's addresses.
//!
//! Guarantees: a client without a certificate that the cluster's authority signed for clients gets no answer; connections are
//! few; certificates are read for each connection, so that new ones count at once.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use node_protocol::{Line, names};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;

use crate::launchers::Reports;

const MAX_CONNECTIONS: usize = 32;
/// How long a client may take for the handshake and for a request's head.
const PATIENCE: Duration = Duration::from_secs(10);
/// Lines that a client may have unread.
const UNREAD: usize = 16;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Serves the API until the process ends.
pub(crate) async fn serve(listener: TcpListener, certificates: PathBuf, reports: Arc<Reports>) {
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
        let (certificates, reports) = (certificates.clone(), Arc::clone(&reports));
        tokio::spawn(async move {
            if let Err(error) = connection(stream, &certificates, reports).await {
                tracing::debug!(error = %protocol::chain::chain(&*error), "a connection to the API has ended");
            }
            drop(place);
        });
    }
}

async fn connection(
    stream: tokio::net::TcpStream,
    certificates: &Path,
    reports: Arc<Reports>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let config = match tls(certificates) {
        Ok(config) => config,
        Err(error) => {
            tracing::warn!(folder = %certificates.display(), %error, "no certificate for the API yet");
            return Err(error.into());
        }
    };
    keep_alive(&stream)?;
    let accepted = tokio::time::timeout(PATIENCE, TlsAcceptor::from(Arc::new(config)).accept(stream)).await??;
    let answer = hyper::service::service_fn(move |request| {
        let reports = Arc::clone(&reports);
        async move { Ok::<_, Infallible>(answer(&request, &reports)) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    server.serve_connection(TokioIo::new(accepted), answer).await?;
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

/// The configuration from the files of a `kubernetes.io/tls` Secret and `ca.crt`.
///
/// # Errors
/// The first file that is missing or unfit.
fn tls(folder: &Path) -> io::Result<ServerConfig> {
    let unfit = |name: &str, error: &dyn std::fmt::Display| io::Error::other(format!("{name}: {error}"));
    let read = |name: &str| {
        let found = CertificateDer::pem_file_iter(folder.join(name)).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        found.map_err(|error| unfit(name, &error))
    };
    let mut authorities = RootCertStore::empty();
    for authority in read("ca.crt")? {
        authorities.add(authority).map_err(|error| unfit("ca.crt", &error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(&provider));
    let clients = clients.build().map_err(|error| unfit("ca.crt", &error))?;
    let key = PrivateKeyDer::from_pem_file(folder.join("tls.key")).map_err(|error| unfit("tls.key", &error))?;
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(io::Error::other)?.with_client_cert_verifier(clients);
    config.with_single_cert(read("tls.crt")?, key).map_err(|error| unfit("tls.crt", &error))
}

fn answer(request: &Request<Incoming>, reports: &Arc<Reports>) -> Response<Body> {
    match (request.method(), request.uri().path(), request.uri().query()) {
        (&Method::GET, names::LAUNCHERS_PATH, query) => {
            let is_watch = query == Some(names::WATCH);
            if !is_watch && query.is_some() {
                return text(StatusCode::BAD_REQUEST, format!("the only query is {}\n", names::WATCH));
            }
            let frames = lines(Arc::clone(reports), is_watch);
            let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
            response
                .headers_mut()
                .insert("content-type", hyper::header::HeaderValue::from_static("application/x-ndjson"));
            response
        }
        (_, names::LAUNCHERS_PATH, _) => text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
        _ => text(StatusCode::NOT_FOUND, format!("there is only {}\n", names::LAUNCHERS_PATH)),
    }
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
