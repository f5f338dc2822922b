//! HTTP for reading: connections that are kept, within limits. What is answered is each service's own.

pub(crate) mod files;
pub(crate) mod metrics;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Most connections at once; others wait in the kernel's queue.
const MOST_CONNECTIONS: usize = 256;
/// How long a client may take for a request, and how long a connection is kept without one.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// How long a client may take nothing of what it is sent.
const STALL_LIMIT: Duration = Duration::from_secs(60);

pub(crate) type Body = BoxBody<Bytes, std::io::Error>;

/// What a listener is for.
pub(crate) trait Answer: Send + Sync + 'static {
    /// The answer to a request, whose body is ignored.
    fn answer(&self, client: SocketAddr, request: &Request<Incoming>) -> impl Future<Output = Response<Body>> + Send;
}

/// Serves connections as long as the program runs.
pub(crate) async fn serve(listener: TcpListener, service: impl Answer) {
    let service = Arc::new(service);
    let connections = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&connections).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, client)) => {
                let service = Arc::clone(&service);
                tokio::spawn(async move {
                    connection(stream, client, &*service).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "HTTP: cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, client: SocketAddr, service: &impl Answer) {
    if let Err(error) = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(STALL_LIMIT)) {
        tracing::debug!(%client, %error, "HTTP: no limit for a stalled client");
    }
    let answer =
        |request: Request<Incoming>| async move { Ok::<_, Infallible>(service.answer(client, &request).await) };
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(REQUEST_LIMIT).max_buf_size(16 * 1024);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service_fn(answer)).await {
        tracing::debug!(%client, %error, "HTTP: the connection ended");
    }
}

pub(crate) fn insert(answer: &mut Response<Body>, name: header::HeaderName, value: &str) {
    // Numbers and fixed words are always valid.
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

pub(crate) fn text(status: StatusCode, message: &str) -> Response<Body> {
    let body = Full::new(Bytes::from(message.to_owned())).map_err(|never| match never {}).boxed();
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    insert(&mut answer, header::CONTENT_TYPE, "text/plain; charset=utf-8");
    answer
}

pub(crate) fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed()
}
