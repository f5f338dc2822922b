//! Streams to clients: a WebSocket with KubeVirt's subprotocol, binary messages, raw bytes in them.

use std::io;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UdpSocket;
use tokio::time::{interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::status::Failure;
use crate::http::Answer;

/// The subprotocol that KubeVirt's clients offer.
const SUBPROTOCOL: &str = "plain.kubevirt.io";
/// The longest message that a client may send; KubeVirt's send 32 KiB at most.
const MAX_MESSAGE: usize = 1 << 20;
/// Bytes that go into one message, as KubeVirt's buffers have them; a datagram is never cut.
const BUFFER: usize = 64 << 10;
/// Between two pings, and how long a client may stay silent.
const PING: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(60);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// How a stream ends for the client when the guest's side has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With a close message: everything was delivered.
    Close,
    /// Without one: clients report that they were disconnected, and why that may be.
    Disconnect,
}

/// The guest's side of a stream.
pub(super) enum Guest<S> {
    /// Bytes.
    Stream(S, End),
    /// A message for each datagram.
    Datagrams(UdpSocket),
}

/// Answers 101 and joins the client with the guest once the connection is the client's.
///
/// # Errors
/// The request is no WebSocket's.
pub(super) fn join<S>(mut request: Request<Incoming>, guest: Guest<S>) -> Result<Answer, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let headers = request.headers();
    let is = |name, value: &str| {
        let mut all = headers.get_all(name).iter().filter_map(|header| header.to_str().ok());
        all.any(|header| header.split(',').any(|part| part.trim().eq_ignore_ascii_case(value)))
    };
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| is(UPGRADE, "websocket") && is(SEC_WEBSOCKET_VERSION, "13"));
    let key =
        key.ok_or_else(|| Failure::bad_request("this is a stream: expected a WebSocket request of version 13"))?;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(Failure::bad_request)?;
    let is_plain = is(SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(stream) => serve(TokioIo::new(stream), guest).await,
            Err(error) => tracing::debug!(%error, "a client's stream was not opened"),
        }
    });
    let mut response = Response::new(Full::<Bytes>::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if is_plain {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    Ok(response)
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: TokioIo<Upgraded>, guest: Guest<S>) {
    let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let (to_client, from_client) = socket.split();
    match guest {
        Guest::Stream(stream, end) => {
            let (read, write) = tokio::io::split(stream);
            copy(Reader::Stream(read), Writer::Stream(write), to_client, from_client, end).await;
        }
        Guest::Datagrams(udp) => {
            let (read, write) = (Reader::<S>::Datagrams(&udp), Writer::<S>::Datagrams(&udp));
            copy(read, write, to_client, from_client, End::Close).await;
        }
    }
}

async fn copy<S: AsyncRead + AsyncWrite + Unpin>(
    reader: Reader<'_, S>,
    writer: Writer<'_, S>,
    mut to_client: SplitSink<Socket, Message>,
    mut from_client: SplitStream<Socket>,
    end: End,
) {
    let guest_ended = {
        let mut sending = std::pin::pin!(send(reader, &mut to_client));
        tokio::select! {
            sent = &mut sending => sent.is_ok(),
            ended = receive(&mut from_client, writer) => match ended {
                Side::Client => false,
                // It may have sent an answer before it closed.
                Side::Guest => sending.await.is_ok(),
            },
        }
    };
    if guest_ended && end == End::Close {
        // Without a code clients take the end for an error. A client that is gone needs no close message.
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        drop(timeout(PING, to_client.send(Message::Close(Some(frame)))).await);
        // RFC 6455, section 7.1.1: the connection is closed after the client's answer. Earlier, what the client has sent meanwhile
        // would reset it, and the close message might be lost with it.
        drop(timeout(PING, async { while let Some(Ok(_)) = from_client.next().await {} }).await);
    }
}

/// Which side of a stream has ended.
enum Side {
    Client,
    Guest,
}

/// Guest to client, until the guest's side has ended; an error is the client's.
async fn send<S: AsyncRead>(mut reader: Reader<'_, S>, client: &mut SplitSink<Socket, Message>) -> Result<(), Error> {
    let mut buffer = vec![0; BUFFER];
    let mut pings = interval(PING);
    loop {
        let read = tokio::select! {
            read = reader.read(&mut buffer) => read,
            _ = pings.tick() => {
                client.send(Message::Ping(Bytes::from_static(b"keep alive"))).await?;
                continue;
            }
        };
        match read {
            Ok(count) if count > 0 || reader.is_datagrams() => {
                let bytes = buffer.get(..count).unwrap_or_default();
                client.send(Message::Binary(Bytes::copy_from_slice(bytes))).await?;
            }
            // A refused datagram is reported to the next call: the guest's port may open later.
            Err(error) if reader.is_datagrams() && error.kind() == io::ErrorKind::ConnectionRefused => {}
            Ok(_) | Err(_) => return Ok(()),
        }
    }
}

/// Client to guest, until either has ended or the client is silent for too long.
async fn receive<S: AsyncWrite>(client: &mut SplitStream<Socket>, mut writer: Writer<'_, S>) -> Side {
    while let Ok(Some(Ok(message))) = timeout(SILENCE, client.next()).await {
        let written = match message {
            Message::Binary(bytes) => writer.write(&bytes).await,
            Message::Text(text) => writer.write(text.as_bytes()).await,
            Message::Close(_) => return Side::Client,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
        };
        if written.is_err() {
            return Side::Guest;
        }
    }
    Side::Client
}

enum Reader<'a, S> {
    Stream(tokio::io::ReadHalf<S>),
    Datagrams(&'a UdpSocket),
}

impl<S: AsyncRead> Reader<'_, S> {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Stream(stream) => stream.read(buffer).await,
            Self::Datagrams(socket) => socket.recv(buffer).await,
        }
    }

    fn is_datagrams(&self) -> bool {
        matches!(self, Self::Datagrams(_))
    }
}

enum Writer<'a, S> {
    Stream(tokio::io::WriteHalf<S>),
    Datagrams(&'a UdpSocket),
}

impl<S: AsyncWrite> Writer<'_, S> {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stream(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
            Self::Datagrams(socket) => match socket.send(bytes).await {
                Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => Err(error),
                _ => Ok(()),
            },
        }
    }
}
