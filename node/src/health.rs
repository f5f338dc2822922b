//! What `kubectl port-forward` finds on the agent's port 8443: HTTPS with the agent's certificate, and none asked of clients.
//!
//! Guarantees: it listens on the pod's loopback alone, says nothing but the version of the configuration, and has few
//! connections, each for one answer.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use node_protocol::Health;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::tls;

const MAX_CONNECTIONS: usize = 8;
/// How long a client may take for all of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The resourceVersion of the KubeVirt object that is followed; 0 before the controller has said one.
pub(crate) type FollowedVersion = Arc<AtomicU64>;

/// Answers `/healthz`, until the process ends.
pub(crate) async fn serve(listener: TcpListener, certificates: PathBuf, followed: FollowedVersion) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (certificates, followed) = (certificates.clone(), Arc::clone(&followed));
        tokio::spawn(async move {
            match tls::for_any_client(&certificates) {
                // A client that goes away in the middle has its reasons.
                Ok(config) => drop(tokio::time::timeout(PATIENCE, connection(stream, config, &followed)).await),
                Err(error) => tracing::debug!(%error, "no certificate yet"),
            }
            drop(place);
        });
    }
}

async fn connection(
    stream: TcpStream,
    config: ServerConfig,
    followed: &FollowedVersion,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let accepted = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
    let answer = hyper::service::service_fn(|request: Request<Incoming>| {
        let response = answer(request.uri().path(), followed.load(Ordering::Acquire));
        async { Ok::<_, Infallible>(response) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
    server.serve_connection(TokioIo::new(accepted), answer).await?;
    Ok(())
}

/// Clients of KubeVirt ask for `//healthz`.
fn answer(path: &str, followed: u64) -> Response<Full<Bytes>> {
    let health = Health { config_resource_version: followed.to_string() };
    let (status, body) = match path.trim_start_matches('/') {
        "healthz" => (StatusCode::OK, serde_json::to_vec(&health).unwrap_or_default()),
        _ => (StatusCode::NOT_FOUND, b"{}".to_vec()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    // spec: NODE-9
    #[tokio::test]
    async fn health_says_which_configuration_is_followed() {
        for path in ["/healthz", "//healthz"] {
            let response = answer(path, 4711);
            assert_eq!(response.status(), StatusCode::OK);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, r#"{"config-resource-version":"4711"}"#);
        }
        assert_eq!(answer("/metrics", 0).status(), StatusCode::NOT_FOUND);
    }
}
