//! kubelet's probes of the agent: plain HTTP without content.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

const PATIENCE: Duration = Duration::from_secs(5);

/// Answers `/healthz` with 200, and `/readyz` with 200 or 503, until the process ends.
pub(crate) async fn serve(listener: TcpListener, is_ready: Arc<AtomicBool>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let is_ready = Arc::clone(&is_ready);
        let answer = hyper::service::service_fn(move |request: Request<Incoming>| {
            let status = status(request.uri().path(), is_ready.load(Ordering::Acquire));
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = status;
            async move { Ok::<_, Infallible>(response) }
        });
        tokio::spawn(async move {
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
            // A client that goes away in the middle has its reasons.
            drop(tokio::time::timeout(PATIENCE, server.serve_connection(TokioIo::new(stream), answer)).await);
        });
    }
}

fn status(path: &str, is_ready: bool) -> StatusCode {
    match (path, is_ready) {
        ("/healthz", _) | ("/readyz", true) => StatusCode::OK,
        ("/readyz", false) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::NOT_FOUND,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_is_not_ready_lives() {
        assert_eq!(
            (status("/healthz", false), status("/readyz", false)),
            (StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE)
        );
        assert_eq!((status("/readyz", true), status("/", true)), (StatusCode::OK, StatusCode::NOT_FOUND));
    }
}
