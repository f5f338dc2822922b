//! Who talks to a supervisor: the command that started it, commands that come later, and signals.

use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::protocol::{Report, Request};
use protocol::socket::Address;

/// Longest request.
const MOST_BYTES: u64 = 4096;

/// Something the supervisor was asked.
#[derive(Debug)]
pub(crate) enum Asked {
    /// A request, and who is waiting for the answer.
    Request(Request, Listener),
    /// The command that started us is gone without a word.
    StarterGone,
    /// The host is shutting down, or somebody sent SIGTERM.
    Terminate,
}

/// Somebody at the other end of a socket.
///
/// A report is written at once and from here: the few hundred bytes it has fit into a socket's buffer, and when the
/// supervisor ends nothing is left unsaid. Who does not read is not waited for.
#[derive(Debug, Clone)]
pub(crate) struct Listener(Option<Arc<StdStream>>);

impl Listener {
    /// Nobody.
    pub(crate) fn nobody() -> Self {
        Self(None)
    }

    /// Says it, if there is somebody.
    pub(crate) fn tell(&self, report: &Report) {
        let Some(stream) = self.0.as_deref() else { return };
        // Serialising our own derived types to memory cannot fail; an empty line would be passed over.
        let mut line = serde_json::to_vec(report).unwrap_or_default();
        line.push(b'\n');
        let mut stream = stream;
        if let Err(error) = stream.write_all(&line) {
            tracing::debug!(%error, "nobody reads this report");
        }
    }
}

/// Receives from the starter's socket, from a socket at `path`, and from signals.
///
/// # Errors
/// When the socket cannot be made or signals not be caught.
pub(crate) fn receive(path: &Path, starter: Option<StdStream>) -> io::Result<(Listener, mpsc::Receiver<Asked>)> {
    let (ask, asked) = mpsc::channel(16);
    tokio::spawn(accept(listen(path)?, ask.clone()));
    let mut terminate = signal(SignalKind::terminate())?;
    let on_signal = ask.clone();
    tokio::spawn(
        async move { while terminate.recv().await.is_some() && on_signal.send(Asked::Terminate).await.is_ok() {} },
    );
    let Some(starter) = starter else { return Ok((Listener::nobody(), asked)) };
    let (reader, listener) = both_ways(starter)?;
    let told = listener.clone();
    tokio::spawn(async move {
        read_requests(reader, listener, &ask).await;
        // A send that fails means that the supervisor has ended: nobody is left to tell.
        let _ = ask.send(Asked::StarterGone).await;
    });
    Ok((told, asked))
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

async fn accept(listener: UnixListener, ask: mpsc::Sender<Asked>) {
    loop {
        match listener.accept().await.and_then(|(stream, _)| both_ways(stream.into_std()?)) {
            Ok((reader, listener)) => {
                let ask = ask.clone();
                tokio::spawn(async move { read_requests(reader, listener, &ask).await });
            }
            Err(error) => {
                tracing::warn!(%error, "a request could not be received");
                // Out of descriptors, most likely: trying again at once would only burn the processor.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

fn both_ways(stream: StdStream) -> io::Result<(BufReader<UnixStream>, Listener)> {
    stream.set_nonblocking(true)?;
    let listener = Listener(Some(Arc::new(stream.try_clone()?)));
    Ok((BufReader::new(UnixStream::from_std(stream)?), listener))
}

async fn read_requests(mut reader: BufReader<UnixStream>, listener: Listener, ask: &mpsc::Sender<Asked>) {
    loop {
        let mut line = Vec::new();
        match (&mut reader).take(MOST_BYTES).read_until(b'\n', &mut line).await {
            Ok(_) if line.ends_with(b"\n") => {}
            _ => return,
        }
        match serde_json::from_slice(&line) {
            Err(error) => listener.tell(&Report::Refused { message: format!("request: {error}") }),
            Ok(request) if ask.send(Asked::Request(request, listener.clone())).await.is_err() => return,
            Ok(_) => {}
        }
    }
}
