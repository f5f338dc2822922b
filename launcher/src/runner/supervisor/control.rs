//! The supervisor's side of the launcher's control socket.
//!
//! The launcher is another user's process and what it says is checked: lines are bounded, unknown events passed over.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::socket::Address;

/// Longest line that is read.
const MOST_BYTES: u64 = 64 << 10;

/// What the launcher says of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// The guest's processors run.
    Running,
    /// They stand.
    Paused,
    /// Something else that is worth a line in the log.
    Other(String),
}

/// A connection that is made as soon as the launcher listens, and tells what happens.
#[derive(Debug)]
pub(crate) struct Control {
    path: PathBuf,
    said: mpsc::Receiver<Said>,
    listening: JoinHandle<()>,
}

impl Control {
    /// Listens to the launcher whose socket is at `path`.
    pub(crate) fn of(path: &Path) -> Self {
        let (tell, said) = mpsc::channel(64);
        let socket = path.to_owned();
        let listening = tokio::spawn(async move {
            if let Err(error) = listen(&socket, &tell).await {
                tracing::warn!(%error, "the launcher's control socket");
            }
        });
        Self { path: path.to_owned(), said, listening }
    }

    /// The next thing the launcher says; never comes when it has nothing to say any more.
    pub(crate) async fn next(&mut self) -> Said {
        match self.said.recv().await {
            Some(said) => said,
            None => std::future::pending().await,
        }
    }

    /// Asks the launcher to end the machine within `grace`. Returns whether it heard.
    pub(crate) async fn stop(&self, grace: Duration) -> bool {
        const PATIENCE: Duration = Duration::from_secs(2);
        let request = json!({"id": 1, "verb": "stop", "graceSeconds": grace.as_secs()});
        let asked = tokio::time::timeout(PATIENCE, ask(&self.path, &request)).await;
        matches!(asked, Ok(Ok(answer)) if answer.get("ok").is_some())
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(path: &Path, tell: &mpsc::Sender<Said>) -> io::Result<()> {
    let mut stream = connect(path).await;
    stream.write_all(b"{\"id\":1,\"verb\":\"events\"}\n{\"id\":2,\"verb\":\"status\"}\n").await?;
    let mut reader = BufReader::new(stream);
    while let Some(line) = read_line(&mut reader).await? {
        if let Some(said) = understand(&line)
            && tell.send(said).await.is_err()
        {
            break;
        }
    }
    Ok(())
}

/// Waits for the launcher to listen. Whether it ever does is known by its process.
async fn connect(path: &Path) -> UnixStream {
    const STEP: Duration = Duration::from_millis(10);
    loop {
        match connect_once(path).await {
            Ok(stream) => return stream,
            Err(_) => tokio::time::sleep(STEP).await,
        }
    }
}

async fn connect_once(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(Address::of(path)?.path()).await
}

async fn ask(path: &Path, request: &Value) -> io::Result<Value> {
    let mut stream = connect_once(path).await?;
    stream.write_all(format!("{request}\n").as_bytes()).await?;
    let line = read_line(&mut BufReader::new(stream)).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(serde_json::from_slice(&line)?)
}

async fn read_line(reader: &mut BufReader<UnixStream>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    reader.take(MOST_BYTES).read_until(b'\n', &mut line).await?;
    Ok(line.ends_with(b"\n").then_some(line))
}

/// An event's type, or the state in the answer to `status`.
fn understand(line: &[u8]) -> Option<Said> {
    let line: Value = serde_json::from_slice(line).ok()?;
    let event = line.pointer("/event/type").and_then(Value::as_str);
    let state = line.pointer("/ok/state").and_then(Value::as_str);
    match (event, state) {
        (Some("running"), _) | (_, Some("running")) => Some(Said::Running),
        (Some("paused"), _) | (_, Some("paused")) => Some(Said::Paused),
        (Some(_), _) => Some(Said::Other(line.get("event")?.to_string())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_and_the_first_status_say_the_same() {
        assert_eq!(understand(br#"{"event":{"type":"running"}}"#), Some(Said::Running));
        assert_eq!(understand(br#"{"id":2,"ok":{"state":"running"}}"#), Some(Said::Running));
        assert_eq!(understand(br#"{"id":2,"ok":{"state":"starting"}}"#), None);
        assert_eq!(understand(br#"{"event":{"type":"paused"}}"#), Some(Said::Paused));
        let reset = Said::Other(r#"{"byGuest":true,"type":"reset"}"#.to_owned());
        assert_eq!(understand(br#"{"event":{"type":"reset","byGuest":true}}"#), Some(reset));
        assert_eq!(understand(b"{}"), None);
        assert_eq!(understand(b"nonsense"), None);
    }
}
