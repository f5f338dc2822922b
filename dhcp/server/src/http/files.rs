//! Files by HTTP: GET and HEAD, ranges.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::{Answer, Body, empty, insert, text};
use crate::chunks::Chunks;
use crate::counts::Counts;
use crate::files::{Denied, Root};

/// The folder, and what is counted of its files.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) root: Arc<Root>,
    pub(crate) counts: Arc<Counts>,
}

impl Answer for Files {
    async fn answer(&self, client: SocketAddr, request: &Request<Incoming>) -> Response<Body> {
        answer(self, client, request)
    }
}

fn answer(files: &Files, client: SocketAddr, request: &Request<Incoming>) -> Response<Body> {
    let path = percent_encoding::percent_decode_str(request.uri().path()).decode_utf8_lossy().into_owned();
    let range = request.headers().get(header::RANGE).and_then(|value| value.to_str().ok());
    let is_head = request.method() == Method::HEAD;
    let answer = match *request.method() {
        Method::GET | Method::HEAD => file(files, &path, range, is_head),
        _ => {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served\n");
            refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            refused
        }
    };
    let (method, status) = (request.method(), answer.status().as_u16());
    if answer.status().is_success() {
        files.counts.add(|counts| counts.http_answered += 1);
        tracing::info!(%client, %method, path, status, "HTTP: answered");
    } else {
        files.counts.add(|counts| counts.http_refused += 1);
        tracing::warn!(%client, %method, path, status, "HTTP: refused");
    }
    answer
}

fn file(files: &Files, path: &str, range: Option<&str>, is_head: bool) -> Response<Body> {
    let served = match files.root.file(path) {
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
    let body = if is_head { empty() } else { stream(Chunks::new(served), bytes, Arc::clone(&files.counts)) };
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

/// The file's bytes, piece by piece. A file that becomes shorter meanwhile ends the connection: the client sees that it lacks some.
fn stream(chunks: Chunks, bytes: Range<u64>, counts: Arc<Counts>) -> Body {
    let next = async |(mut chunks, bytes, counts): (Chunks, Range<u64>, Arc<Counts>)| {
        if bytes.is_empty() {
            return Ok(None);
        }
        let chunk = chunks.at(bytes.start, bytes.end - bytes.start).await?;
        let length = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        counts.add(|counts| counts.http_bytes += length);
        let left = bytes.start + length..bytes.end;
        Ok::<_, std::io::Error>(Some((Frame::data(chunk), (chunks, left, counts))))
    };
    StreamBody::new(Box::pin(stream::try_unfold((chunks, bytes, counts), next))).boxed()
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
