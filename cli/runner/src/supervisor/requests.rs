//! The clients of a supervisor: the command that started it, commands that come later, and signals.

use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::machine::SupervisorInput;
use crate::protocol::Report;
use protocol::socket::Address;

/// Longest request in bytes; a longer line ends the connection.
const MOST_BYTES: u64 = 4096;

/// The sending side of a client's connection.
///
/// A report is written at once and from here: the few hundred bytes it has fit into a socket's buffer, and when the
/// supervisor ends nothing is left unsaid. A client that does not read is not waited for.
#[derive(Debug, Clone)]
pub(crate) struct Client(Option<Arc<StdStream>>);

impl Client {
    /// No connection: reports are dropped.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Sends a report, if there is a connection.
    pub(crate) fn send(&self, report: &Report) {
        let Some(stream) = self.0.as_deref() else { return };
        // Serialising our own derived types to memory cannot fail; an empty line would be ignored.
        let mut line = serde_json::to_vec(report).unwrap_or_default();
        line.push(b'\n');
        let mut stream = stream;
        if let Err(error) = stream.write_all(&line) {
            tracing::debug!(%error, "a report could not be sent");
        }
    }
}

/// Receives from the starter's socket, from a socket at `path`, and from signals, into `inputs`. Returns the starter.
///
/// # Errors
/// When the socket cannot be made or signals not be caught.
pub(crate) fn receive(
    path: &Path,
    starter: Option<StdStream>,
    inputs: &mpsc::Sender<SupervisorInput<Client>>,
) -> io::Result<Client> {
    tokio::spawn(accept(listen(path)?, inputs.clone()));
    let mut terminate = signal(SignalKind::terminate())?;
    let on_signal = inputs.clone();
    tokio::spawn(async move {
        while terminate.recv().await.is_some() && on_signal.send(SupervisorInput::Terminate).await.is_ok() {}
    });
    let Some(starter) = starter else { return Ok(Client::none()) };
    let (reader, client) = both_ways(starter)?;
    let (starter, inputs) = (client.clone(), inputs.clone());
    tokio::spawn(async move {
        read_requests(reader, client, &inputs).await;
        // A send that fails means that the supervisor has ended.
        let _ = inputs.send(SupervisorInput::StarterGone).await;
    });
    Ok(starter)
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(Address::of(path)?.path())?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn accept(listener: UnixListener, inputs: mpsc::Sender<SupervisorInput<Client>>) {
    loop {
        match listener.accept().await.and_then(|(stream, _)| both_ways(stream.into_std()?)) {
            Ok((reader, client)) => {
                let inputs = inputs.clone();
                tokio::spawn(async move { read_requests(reader, client, &inputs).await });
            }
            Err(error) => {
                tracing::warn!(%error, "a request could not be received");
                // Out of descriptors, most likely: trying again at once would only burn the processor.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

fn both_ways(stream: StdStream) -> io::Result<(BufReader<UnixStream>, Client)> {
    stream.set_nonblocking(true)?;
    let client = Client(Some(Arc::new(stream.try_clone()?)));
    Ok((BufReader::new(UnixStream::from_std(stream)?), client))
}

async fn read_requests(
    mut reader: BufReader<UnixStream>,
    client: Client,
    inputs: &mpsc::Sender<SupervisorInput<Client>>,
) {
    loop {
        let mut line = Vec::new();
        match (&mut reader).take(MOST_BYTES).read_until(b'\n', &mut line).await {
            Ok(_) if line.ends_with(b"\n") => {}
            _ => return,
        }
        match serde_json::from_slice(&line) {
            Err(error) => client.send(&Report::Refused { message: format!("request: {error}") }),
            Ok(request) if inputs.send(SupervisorInput::Request(request, client.clone())).await.is_err() => return,
            Ok(_) => {}
        }
    }
}
