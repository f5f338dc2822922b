//! HTTP for reading: GET and HEAD, ranges, connections that are kept.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::chunks::Chunks;
use crate::files::{Denied, Root};

/// Most connections at once; others wait in the kernel's queue.
const MOST_CONNECTIONS: usize = 256;
/// How long a client may take for a request, and how long a connection is kept without one.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// How long a client may take nothing of what it is sent.
const STALL_LIMIT: Duration = Duration::from_secs(60);

type Body = BoxBody<Bytes, std::io::Error>;

/// Serves connections as long as the program runs.
pub(crate) async fn serve(listener: TcpListener, root: Arc<Root>) {
    let connections = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&connections).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, client)) => {
                let root = Arc::clone(&root);
                tokio::spawn(async move {
                    connection(stream, client, &root).await;
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

async fn connection(stream: TcpStream, client: SocketAddr, root: &Root) {
    if let Err(error) = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(STALL_LIMIT)) {
        tracing::debug!(%client, %error, "HTTP: no limit for a stalled client");
    }
    let service = service_fn(async |request: Request<Incoming>| Ok::<_, Infallible>(answer(root, client, &request)));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(REQUEST_LIMIT).max_buf_size(16 * 1024);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%client, %error, "HTTP: the connection ended");
    }
}

fn answer(root: &Root, client: SocketAddr, request: &Request<Incoming>) -> Response<Body> {
    let path = percent_encoding::percent_decode_str(request.uri().path()).decode_utf8_lossy().into_owned();
    let range = request.headers().get(header::RANGE).and_then(|value| value.to_str().ok());
    let is_head = request.method() == Method::HEAD;
    let answer = match *request.method() {
        Method::GET | Method::HEAD => file(root, &path, range, is_head),
        _ => {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served\n");
            refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            refused
        }
    };
    let (method, status) = (request.method(), answer.status().as_u16());
    if answer.status().is_success() {
        tracing::info!(%client, %method, path, status, "HTTP: answered");
    } else {
        tracing::warn!(%client, %method, path, status, "HTTP: refused");
    }
    answer
}

fn file(root: &Root, path: &str, range: Option<&str>, is_head: bool) -> Response<Body> {
    let served = match root.file(path) {
        Ok(served) => served,
        Err(denied) => {
            let status = if denied == Denied::Missing { StatusCode::NOT_FOUND } else { StatusCode::FORBIDDEN };
            return text(status, &format!("{path}: {denied}\n"));
        }
    };
    let size = served.size;
    let (status, bytes) = match range.map(|range| part(range, size)) {
        None | Some(Part::Whole) => (StatusCode::OK, 0..size),
        Some(Part::Bytes(bytes)) => (StatusCode::PARTIAL_CONTENT, bytes),
        Some(Part::Unsatisfiable) => {
            let mut refused = text(StatusCode::RANGE_NOT_SATISFIABLE, "the file has no such bytes\n");
            insert(&mut refused, header::CONTENT_RANGE, &format!("bytes */{size}"));
            return refused;
        }
    };
    let length = bytes.end - bytes.start;
    let content_range = format!("bytes {}-{}/{size}", bytes.start, bytes.end.saturating_sub(1));
    let body = if is_head { empty() } else { stream(Chunks::new(served), bytes) };
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    insert(&mut answer, header::CONTENT_LENGTH, &length.to_string());
    insert(&mut answer, header::CONTENT_TYPE, "application/octet-stream");
    insert(&mut answer, header::ACCEPT_RANGES, "bytes");
    if status == StatusCode::PARTIAL_CONTENT {
        insert(&mut answer, header::CONTENT_RANGE, &content_range);
    }
    answer
}

fn insert(answer: &mut Response<Body>, name: header::HeaderName, value: &str) {
    // Numbers and fixed words are always valid.
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

fn text(status: StatusCode, message: &str) -> Response<Body> {
    let body = Full::new(Bytes::from(message.to_owned())).map_err(|never| match never {}).boxed();
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    insert(&mut answer, header::CONTENT_TYPE, "text/plain; charset=utf-8");
    answer
}

fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed()
}

/// The file's bytes, piece by piece. A file that becomes shorter meanwhile ends the connection: the client sees that it lacks some.
fn stream(chunks: Chunks, bytes: Range<u64>) -> Body {
    let next = async |(mut chunks, bytes): (Chunks, Range<u64>)| {
        if bytes.is_empty() {
            return Ok(None);
        }
        let chunk = chunks.at(bytes.start, bytes.end - bytes.start).await?;
        let from = bytes.start + u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        Ok::<_, std::io::Error>(Some((Frame::data(chunk), (chunks, from..bytes.end))))
    };
    StreamBody::new(Box::pin(stream::try_unfold((chunks, bytes), next))).boxed()
}

/// What a Range header asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Not understood, or several parts: the whole file is a valid answer (RFC 9110 §14.2).
    Whole,
    Bytes(Range<u64>),
    Unsatisfiable,
}

/// Reads one range of bytes (RFC 9110 §14.1.2).
fn part(range: &str, size: u64) -> Part {
    let ends = range.strip_prefix("bytes=").map(str::trim).and_then(|ends| ends.split_once('-'));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let Some((first, last)) = ends.filter(|(first, last)| digits(first) && digits(last)) else { return Part::Whole };
    // A number that is too large for 64 bits is behind the end of every file.
    let number = |text: &str| text.parse().unwrap_or(u64::MAX);
    let bytes = match (first, last) {
        ("", "") => return Part::Whole,
        ("", count) => size.saturating_sub(number(count))..size,
        (first, "") => number(first)..size,
        (first, last) if number(first) > number(last) => return Part::Whole,
        (first, last) => number(first)..size.min(number(last).saturating_add(1)),
    };
    if bytes.is_empty() { Part::Unsatisfiable } else { Part::Bytes(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: BOOT-9
    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        let cases = [
            ("bytes=0-0", Part::Bytes(0..1)),
            ("bytes=2-", Part::Bytes(2..10)),
            ("bytes=-3", Part::Bytes(7..10)),
            ("bytes=-99", Part::Bytes(0..10)),
            ("bytes=8-99999999999999999999999", Part::Bytes(8..10)),
            ("bytes=10-", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=99999999999999999999999-", Part::Unsatisfiable),
            ("bytes=5-2", Part::Whole),
            ("bytes=0-1,4-5", Part::Whole),
            ("bytes=-", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("bytes=+1-2", Part::Whole),
        ];
        cases.into_iter().for_each(|(range, expected)| assert_eq!(part(range, 10), expected, "{range}"));
        assert_eq!(part("bytes=0-", 0), Part::Unsatisfiable);
    }
}
