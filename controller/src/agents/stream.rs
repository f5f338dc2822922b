//! The stream of one node agent: lines of JSON over HTTP and mutual TLS.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::HOST;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use node_protocol::names::{LAUNCHERS_PATH, PORT, SERVER_NAME, WATCH};
use node_protocol::{Line, LineError, MAX_LINE_BYTES};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Longest an agent may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a connection may be silent before the kernel asks whether the other end is there, how often, and how many times.
const SILENCE: Duration = Duration::from_secs(30);
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// No connection, or one that broke off.
    #[error("no connection to the agent")]
    Connect(#[from] io::Error),
    /// The agent did not answer in time.
    #[error("the agent does not answer")]
    Time(#[from] tokio::time::error::Elapsed),
    /// No HTTP.
    #[error("the agent's answer is no HTTP")]
    Http(#[from] hyper::Error),
    /// Another answer than 200.
    #[error("the agent answers with status {0}, expected 200")]
    Status(hyper::StatusCode),
    /// A line of another shape.
    #[error("the agent sends something else than launchers")]
    Line(#[from] LineError),
    /// The agent closed it.
    #[error("the agent closed the stream")]
    Closed,
}

/// Reads an agent's stream; `on_line` gets each line. It ends only with an error.
pub(super) async fn read(address: IpAddr, tls: Arc<ClientConfig>, mut on_line: impl FnMut(Line)) -> StreamError {
    let mut response = match tokio::time::timeout(ANSWER, ask(address, tls)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return error,
        Err(error) => return error.into(),
    };
    if response.status() != hyper::StatusCode::OK {
        return StreamError::Status(response.status());
    }
    let mut lines = Lines::default();
    while let Some(frame) = response.frame().await {
        let bytes = match frame {
            Ok(frame) => frame.into_data().unwrap_or_default(),
            Err(error) => return error.into(),
        };
        match lines.push(&bytes) {
            Ok(complete) => complete.into_iter().for_each(&mut on_line),
            Err(error) => return error.into(),
        }
    }
    StreamError::Closed
}

async fn ask(address: IpAddr, tls: Arc<ClientConfig>) -> Result<Response<Incoming>, StreamError> {
    let request = Request::get(format!("{LAUNCHERS_PATH}?{WATCH}")).header(HOST, SERVER_NAME);
    let request = request.body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
    send(address, tls, request).await
}

/// Sends an agent one request, on a connection of its own that may be upgraded.
pub(super) async fn send<B>(
    address: IpAddr,
    tls: Arc<ClientConfig>,
    request: Request<B>,
) -> Result<Response<Incoming>, StreamError>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
    let stream = connect(SocketAddr::new(address, PORT)).await?;
    let stream = TlsConnector::from(tls).connect(name, stream).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to an agent broke off");
        }
    });
    Ok(sender.send_request(request).await?)
}

/// A connection that breaks off when the other end does not answer for a minute: a stream may be silent for long, and a node can
/// be cut off without notice.
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    let probes = TcpKeepalive::new().with_time(SILENCE).with_interval(PROBE_INTERVAL).with_retries(PROBES);
    SockRef::from(&stream).set_tcp_keepalive(&probes)?;
    Ok(stream)
}

/// Bytes as they come, cut into lines.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    /// Takes bytes in; returns the lines that they complete.
    fn push(&mut self, bytes: &[u8]) -> Result<Vec<Line>, LineError> {
        self.0.extend_from_slice(bytes);
        let end = self.0.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let rest = self.0.split_off(end);
        let complete = std::mem::replace(&mut self.0, rest);
        if self.0.len() > MAX_LINE_BYTES {
            return Err(LineError::TooLong { bytes: self.0.len() });
        }
        complete.split_inclusive(|byte| *byte == b'\n').map(Line::parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: CTRL-27
    #[tokio::test]
    async fn a_connection_to_an_agent_asks_whether_its_other_end_is_there() {
        let agent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = connect(agent.local_addr().unwrap()).await.unwrap();
        let socket = SockRef::from(&stream);
        let kept = (
            socket.keepalive().unwrap(),
            socket.tcp_keepalive_time().unwrap(),
            socket.tcp_keepalive_retries().unwrap(),
        );
        assert_eq!(kept, (true, SILENCE, PROBES));
    }

    #[test]
    fn lines_are_put_together_however_they_are_cut() {
        let text = b"{\"synced\":true}\n{\"podUid\":\"5d1f1c2e-1e0b-4b7c-9d1a-0c5b6a7d8e9f\",\"nodeName\":\"n\"}\n";
        let mut lines = Lines::default();
        let one_by_one: Vec<_> = text.chunks(1).flat_map(|bytes| lines.push(bytes).unwrap()).collect();
        assert_eq!(one_by_one, Lines::default().push(text).unwrap());
        assert_eq!(one_by_one.len(), 2);
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_the_memory() {
        let mut lines = Lines::default();
        let result: Result<Vec<_>, _> = (0..3).map(|_| lines.push(&[b' '; MAX_LINE_BYTES / 2])).collect();
        assert!(matches!(result, Err(LineError::TooLong { .. })));
    }
}
