//! One HTTP GET, judged as kubelet judges it (`k8s.io/kubernetes/pkg/probe/http`).
//!
//! *Flow:* GET → redirects on the same host are followed, ten requests in all → the body is read, 10 KiB of it at most.
//! *Guarantees:* a status from 200 to 399 is success, also that of a redirect to another host, which is not followed; 1xx
//! answers are skipped; an answer that breaks off is no success. The caller bounds the time.

use std::net::{IpAddr, SocketAddr};

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCEPT, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, TRAILER, TRANSFER_ENCODING,
    USER_AGENT,
};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Requests until a chain of redirects is given up.
const MOST_REQUESTS: usize = 10;

/// How much of a body is read.
const MOST_BODY_BYTES: usize = 10 << 10;

/// How often a body that breaks off is requested again before that counts as an answer.
const TRIES: usize = 3;

/// A GET request of an HTTP probe.
#[derive(Debug, Clone)]
pub(super) struct Get<'a> {
    /// The host, if it is not the guest.
    pub(super) host: Option<&'a str>,
    /// Address of the guest, and the host unless `host` names another.
    pub(super) guest: IpAddr,
    pub(super) port: u16,
    /// Path and query, as the manifest has them.
    pub(super) path: &'a str,
    /// Headers of the manifest, in its order.
    pub(super) headers: &'a [(String, String)],
}

/// Why there is no answer to judge.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    /// The TCP connection cannot be made.
    #[error("cannot connect to {authority}")]
    Connect {
        /// Host and port, as in a URL.
        authority: String,
        /// The error of the connection.
        #[source]
        source: std::io::Error,
    },
    /// No answer, or none that is HTTP.
    #[error("the server does not speak HTTP")]
    Http(#[from] hyper::Error),
    /// The server closed the connection within the body.
    #[error("the answer breaks off")]
    Body(#[source] hyper::Error),
    /// The request cannot be made.
    #[error("the request")]
    Request(#[from] hyper::http::Error),
    /// A redirect to something else than HTTP.
    #[error("redirected to {0:?}")]
    Redirect(String),
    /// Redirected [`MOST_REQUESTS`] times.
    #[error("redirected {MOST_REQUESTS} times")]
    TooManyRedirects,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    /// Name or address; IPv6 without brackets.
    host: String,
    port: u16,
    path: String,
}

impl Get<'_> {
    /// Whether the answer is a success.
    ///
    /// # Errors
    /// Why there is no answer, which is a failure.
    pub(super) async fn is_success(&self) -> Result<bool, HttpError> {
        let mut tries = 1..TRIES;
        loop {
            match self.status().await {
                Err(HttpError::Body(_)) if tries.next().is_some() => {}
                status => return Ok((200..400).contains(&status?.as_u16())),
            }
        }
    }

    /// The status at the end of all redirects that are followed.
    async fn status(&self) -> Result<StatusCode, HttpError> {
        let guest = self.guest.to_string();
        let first = self.host.unwrap_or(&guest);
        let mut target = Target { host: first.to_owned(), port: self.port, path: encoded(self.path) };
        let mut named = self.header(HOST.as_str()).filter(|name| !name.is_empty());
        for _ in 0..MOST_REQUESTS {
            // What serves the connection ends with this value.
            let mut connection = JoinSet::new();
            let response = self.send(&target, named, &mut connection).await?;
            match redirect(&response, &target)? {
                Some((next, is_relative)) if next.host == first => {
                    named = named.filter(|_| is_relative);
                    target = next;
                }
                _ => {
                    let status = response.status();
                    read_body(response.into_body()).await?;
                    return Ok(status);
                }
            }
        }
        Err(HttpError::TooManyRedirects)
    }

    async fn send(
        &self,
        target: &Target,
        named: Option<&str>,
        connection: &mut JoinSet<()>,
    ) -> Result<Response<Incoming>, HttpError> {
        let stream = match self.host {
            None => TcpStream::connect(SocketAddr::new(self.guest, target.port)).await,
            Some(_) => TcpStream::connect((target.host.as_str(), target.port)).await,
        };
        let stream = stream.map_err(|source| HttpError::Connect { authority: target.authority(), source })?;
        let mut builder = hyper::client::conn::http1::Builder::new();
        let (mut sender, serving) = builder.title_case_headers(true).handshake(TokioIo::new(stream)).await?;
        connection.spawn(async move {
            // Its failures come with the answer.
            let _ = serving.await;
        });
        let authority = target.authority();
        let mut request = Request::get(target.path.as_str()).body(Empty::<Bytes>::new())?;
        *request.headers_mut() = self.headers(named.unwrap_or(&authority))?;
        Ok(sender.send_request(request).await?)
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name));
        values.next().map(|(_, value)| value.as_str())
    }

    /// The manifest's headers and kubelet's own. Those that describe the connection or a body are not the manifest's.
    fn headers(&self, host: &str) -> Result<HeaderMap, HttpError> {
        let value = |text: &str| HeaderValue::from_str(text).map_err(hyper::http::Error::from);
        let mut headers = HeaderMap::new();
        headers.insert(HOST, value(host)?);
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        for (name, default) in [(USER_AGENT, "kube-probe/tapvisor"), (ACCEPT, "*/*")] {
            // An empty one takes the header away.
            match self.header(name.as_str()) {
                None => drop(headers.insert(name, HeaderValue::from_static(default))),
                Some("") => {}
                Some(given) => drop(headers.insert(name, value(given)?)),
            }
        }
        let known = [HOST, CONNECTION, USER_AGENT, ACCEPT, CONTENT_LENGTH, TRANSFER_ENCODING, TRAILER];
        for (name, text) in self.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(hyper::http::Error::from)?;
            if !known.contains(&name) {
                headers.append(name, value(text)?);
            }
        }
        Ok(headers)
    }
}

impl Target {
    fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// Where a `Location` leads, and whether it names no host (RFC 3986 §5.2); `None` when it is not HTTP.
    fn resolve(&self, location: &str) -> Option<(Self, bool)> {
        let location = location.split('#').next().unwrap_or_default();
        let is_scheme = |scheme: &&str| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        };
        let scheme = location.split_once(':').map(|(scheme, _)| scheme).filter(is_scheme);
        if scheme.is_none() && !location.starts_with("//") {
            return Some((Self { path: encoded(&self.merge(location)), ..self.clone() }, true));
        }
        let absolute = if scheme.is_none() { format!("http:{location}") } else { location.to_owned() };
        let uri = absolute.parse::<Uri>().ok().filter(|uri| uri.scheme_str() == Some("http"))?;
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Some((Self { host, port: uri.port_u16().unwrap_or(80), path: encoded(path) }, false))
    }

    fn merge(&self, reference: &str) -> String {
        let (base, _) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let (path, query) = match reference.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (reference, None),
        };
        let folder = base.rsplit_once('/').map_or("", |(folder, _)| folder);
        let merged = match path {
            "" if query.is_none() => return self.path.clone(),
            "" => base.to_owned(),
            path if path.starts_with('/') => without_dots(path),
            path => without_dots(&format!("{folder}/{path}")),
        };
        query.map_or(merged.clone(), |query| format!("{merged}?{query}"))
    }
}

/// Removes dot segments from a path (RFC 3986 §5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept = Vec::new();
    let parts: Vec<_> = path.split('/').skip(1).collect();
    for (index, part) in parts.iter().enumerate() {
        let is_last = index + 1 == parts.len();
        match *part {
            "." | ".." => {
                if *part == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            part => kept.push(part),
        }
    }
    format!("/{}", kept.join("/"))
}

/// Where an answer redirects to, if it does.
fn redirect(response: &Response<Incoming>, target: &Target) -> Result<Option<(Target, bool)>, HttpError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = response.headers().get(LOCATION).map(|value| String::from_utf8_lossy(value.as_bytes())) else {
        return Ok(None);
    };
    match target.resolve(&location) {
        Some(next) => Ok(Some(next)),
        // Without TLS it is not followed, like one to another host.
        None if location.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:")) => Ok(None),
        None => Err(HttpError::Redirect(location.chars().take(200).collect())),
    }
}

async fn read_body(mut body: Incoming) -> Result<(), HttpError> {
    let mut read = 0;
    while read < MOST_BODY_BYTES {
        let Some(frame) = body.frame().await else { break };
        read += frame.map_err(HttpError::Body)?.data_ref().map_or(0, Bytes::len);
    }
    Ok(())
}

/// A path as it goes into a request line: without fragment, and with what a URL may not hold in percent signs.
fn encoded(path: &str) -> String {
    let path = path.split('#').next().unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !br#""<>\^`{|}"#.contains(&byte);
    path.bytes().map(|b| if is_plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers each path with what `answer` gives for it, and closes only if `closes`. Returns its port and
    /// the requests it was sent.
    async fn server(closes: bool, answer: fn(&str) -> String) -> (u16, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, requests) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                seen.lock().unwrap().push(request);
                stream.write_all(answer(&path).as_bytes()).await.unwrap();
                if !closes {
                    tokio::spawn(async move {
                        // Open until the client closes.
                        let _ = stream.read(&mut [0]).await;
                    });
                }
            }
        });
        (port, requests)
    }

    async fn judged(port: u16, path: &str, headers: &[(String, String)]) -> Result<bool, HttpError> {
        let get = Get { host: None, guest: "127.0.0.1".parse().unwrap(), port, path, headers };
        tokio::time::timeout(Duration::from_secs(5), get.is_success()).await.expect("an answer in time")
    }

    // spec: SVC-13
    #[tokio::test(flavor = "current_thread")]
    async fn an_answer_with_a_length_is_complete_though_the_connection_stays_open() {
        let (port, _) = server(false, |_| "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned()).await;
        assert!(judged(port, "/", &[]).await.unwrap());
        let (port, _) = server(false, |_| "HTTP/1.1 204 No Content\r\n\r\n".to_owned()).await;
        assert!(judged(port, "/", &[]).await.unwrap());
        let (port, _) =
            server(false, |_| "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".to_owned())
                .await;
        assert!(judged(port, "/", &[]).await.unwrap());
    }

    // spec: SVC-13
    #[tokio::test(flavor = "current_thread")]
    async fn the_status_at_the_end_of_redirects_on_the_same_host_counts() {
        let answer = |path: &str| {
            let status = match path {
                "/bad" => "500 Broken".to_owned(),
                "/good" | "/a/good?x=1" => "200 OK".to_owned(),
                "/round" => "302 Found\r\nLocation: /round".to_owned(),
                "/up" => "307 Temporary Redirect\r\nLocation: /a/b/../good?x=1".to_owned(),
                "/elsewhere" => "302 Found\r\nLocation: http://192.0.2.1/bad".to_owned(),
                "/tls" => "301 Moved\r\nLocation: https://127.0.0.1/bad".to_owned(),
                "/file" => "301 Moved\r\nLocation: file:///etc/passwd".to_owned(),
                "/nowhere" => "302 Found".to_owned(),
                "/choices" => "300 Multiple Choices\r\nLocation: /bad".to_owned(),
                to => format!("302 Found\r\nLocation: {}", to.trim_start_matches("/to")),
            };
            format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
        };
        let (port, requests) = server(true, answer).await;
        for (path, expected) in [
            ("/to/bad", false),
            ("/to/good", true),
            ("/up", true),
            // Not followed: the redirect itself is the answer.
            ("/elsewhere", true),
            ("/tls", true),
            ("/nowhere", true),
            ("/choices", true),
        ] {
            assert_eq!(judged(port, path, &[]).await.unwrap(), expected, "{path}");
        }
        assert!(matches!(judged(port, "/file", &[]).await, Err(HttpError::Redirect(_))));
        requests.lock().unwrap().clear();
        assert!(matches!(judged(port, "/round", &[]).await, Err(HttpError::TooManyRedirects)));
        assert_eq!(requests.lock().unwrap().len(), MOST_REQUESTS);
    }

    // spec: SVC-13
    #[tokio::test(flavor = "current_thread")]
    async fn informational_answers_are_skipped_and_other_statuses_are_judged() {
        let (port, _) = server(false, |path| {
            let number = path.trim_start_matches('/');
            format!("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 {number}\r\nContent-Length: 0\r\n\r\n")
        })
        .await;
        for (path, expected) in [("/200", true), ("/399", true), ("/400", false), ("/404", false), ("/503", false)] {
            assert_eq!(judged(port, path, &[]).await.unwrap(), expected, "{path}");
        }
    }

    // spec: SVC-13
    #[tokio::test(flavor = "current_thread")]
    async fn what_is_not_http_and_what_breaks_off_is_no_success() {
        let (port, _) = server(true, |_| "SSH-2.0-OpenSSH_9.2\r\n".to_owned()).await;
        assert!(judged(port, "/", &[]).await.is_err());
        let (port, requests) = server(true, |_| "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok".to_owned()).await;
        assert!(matches!(judged(port, "/", &[]).await, Err(HttpError::Body(_))));
        assert_eq!(requests.lock().unwrap().len(), TRIES);
        // Of a long body the beginning is enough.
        let (port, _) = server(false, |_| {
            format!("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{}", "x".repeat(MOST_BODY_BYTES))
        })
        .await;
        assert!(judged(port, "/", &[]).await.unwrap());
    }

    // spec: SVC-13
    #[tokio::test(flavor = "current_thread")]
    async fn the_request_is_kubelets() {
        let (port, requests) = server(true, |_| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned()).await;
        let sent = || requests.lock().unwrap().pop().unwrap();
        assert!(judged(port, "/ready?a=b c#d", &[]).await.unwrap());
        let plain = sent();
        assert!(plain.starts_with("GET /ready?a=b%20c HTTP/1.1\r\n"), "{plain}");
        for header in
            [&format!("Host: 127.0.0.1:{port}"), "Connection: close", "Accept: */*", "User-Agent: kube-probe/"]
        {
            assert!(plain.contains(&format!("\r\n{header}")), "{header} is missing: {plain}");
        }
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let headers = [
            header("host", "web.example"),
            header("Accept", ""),
            header("X-A", "1"),
            header("x-a", "2"),
            header("Transfer-Encoding", "chunked"),
        ];
        assert!(judged(port, "/", &headers).await.unwrap());
        let named = sent();
        assert!(named.contains("\r\nHost: web.example\r\n"), "{named}");
        assert!(named.contains("\r\nX-A: 1\r\n") && named.contains("\r\nX-A: 2\r\n"), "{named}");
        assert!(!named.contains("Accept") && !named.contains("Transfer-Encoding"), "{named}");
    }

    #[test]
    fn a_location_leads_where_rfc_3986_says() {
        let at = Target { host: "fd00::2".to_owned(), port: 8080, path: "/a/b?q".to_owned() };
        let to =
            |location: &str| at.resolve(location).map(|(target, _)| format!("{}{}", target.authority(), target.path));
        let here = |path: &str| Some(format!("[fd00::2]:8080{path}"));
        assert_eq!(to("/x"), here("/x"));
        assert_eq!(to("x?y"), here("/a/x?y"));
        assert_eq!(to("../../x/."), here("/x/"));
        assert_eq!(to("?z"), here("/a/b?z"));
        assert_eq!(to("#z"), here("/a/b?q"));
        assert_eq!(to("http://[fd00::2]/x"), Some("[fd00::2]:80/x".to_owned()));
        assert_eq!(to("//other:81"), Some("other:81/".to_owned()));
        assert_eq!(to("ftp://other/"), None);
    }
}
