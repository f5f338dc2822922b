//! The supervisor's side of the launcher's control socket.
//!
//! The launcher is another user's process and what it says is checked: lines are bounded, unknown events passed over.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use protocol::control::{Answer, EngineKind, Event, Message, Report, Request, State, Verb};
use protocol::rate_limit::RateLimit;
use protocol::socket::Target;

/// Longest line that is read.
const MOST_BYTES: u64 = 64 << 10;

/// A report of the launcher about its guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LauncherEvent {
    Running,
    /// The guest's processors are halted, on request.
    Paused,
    /// The processors are halted because a disk failed; which disk, and why.
    DiskFailed(String),
    /// What executes the guest, why, and what was found out about KVM.
    Engine {
        kind: EngineKind,
        reason: String,
        /// What the launcher found out about /dev/kvm, as a sentence.
        kvm: String,
    },
    /// Something else that is worth a line in the log.
    Other(String),
}

/// A connection that is made as soon as the launcher listens, and tells what happens.
#[derive(Debug)]
pub(crate) struct Control {
    events: mpsc::Receiver<LauncherEvent>,
    listening: JoinHandle<()>,
}

impl Control {
    /// Listens to the launcher whose socket is at `path`.
    pub(crate) fn of(path: &Path) -> Self {
        let (tell, events) = mpsc::channel(64);
        let socket = path.to_owned();
        let listening = tokio::spawn(async move {
            if let Err(error) = listen(&socket, &tell).await {
                tracing::warn!(%error, "the launcher's control socket");
            }
        });
        Self { events, listening }
    }

    /// The next event; never, once the launcher has closed the connection.
    pub(crate) async fn next(&mut self) -> LauncherEvent {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }
}

/// Requests the launcher whose socket is at `path` to end the machine within `grace`. Returns whether it accepted.
pub(crate) async fn request_stop(path: &Path, grace: Duration) -> bool {
    const PATIENCE: Duration = Duration::from_secs(2);
    let request = Request { grace_seconds: Some(grace.as_secs()), ..Request::new(1, Verb::Stop) };
    let answer = tokio::time::timeout(PATIENCE, ask(path, &request)).await;
    matches!(answer, Ok(Ok(Answer::Ok { .. })))
}

impl Drop for Control {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(path: &Path, tell: &mpsc::Sender<LauncherEvent>) -> io::Result<()> {
    let mut stream = connect(path).await;
    for request in [Request::new(1, Verb::Events), Request::new(2, Verb::Status)] {
        stream.write_all(&request.to_line()).await?;
    }
    let mut reader = BufReader::new(stream);
    let mut pace = Pace::new();
    while let Some(line) = read_line(&mut reader).await? {
        for event in understand(&line) {
            if !pace.lets_through(&event).await {
                continue;
            }
            if tell.send(event).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// How much a launcher may say: each change of state is written to a file, each event to the log.
struct Pace {
    begun: Instant,
    states: RateLimit,
    events: RateLimit,
}

impl Pace {
    fn new() -> Self {
        Self { begun: Instant::now(), states: RateLimit::new(100, 2), events: RateLimit::new(100, 1) }
    }

    /// Whether it is to be passed on. A state is always, in its time; events beyond the limit are counted.
    async fn lets_through(&mut self, event: &LauncherEvent) -> bool {
        const STEP: Duration = Duration::from_millis(200);
        if matches!(event, LauncherEvent::Other(_)) {
            let left_out = self.events.take(self.begun.elapsed(), 1);
            if let Some(left_out @ 1..) = left_out {
                tracing::warn!(left_out, "events of the VM process were not logged: more than its rate limit");
            }
            return left_out.is_some();
        }
        while self.states.take(self.begun.elapsed(), 1).is_none() {
            tokio::time::sleep(STEP).await;
        }
        true
    }
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
    // The launcher's folder is its own: it may have put there what it likes.
    let target = Target::of(path)?;
    let stream = UnixStream::connect(target.path()).await?;
    target.expect_owner(stream.peer_cred()?.uid())?;
    Ok(stream)
}

async fn ask(path: &Path, request: &Request) -> io::Result<Answer> {
    let mut stream = connect_once(path).await?;
    stream.write_all(&request.to_line()).await?;
    let line = read_line(&mut BufReader::new(stream)).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(serde_json::from_slice(&line)?)
}

async fn read_line(reader: &mut BufReader<UnixStream>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    reader.take(MOST_BYTES).read_until(b'\n', &mut line).await?;
    Ok(line.ends_with(b"\n").then_some(line))
}

/// A launcher's text as it is passed on: bounded and without control characters.
pub(crate) fn passed_on(text: &str) -> String {
    const MOST_CHARACTERS: usize = 500;
    text.chars().filter(|c| !c.is_control()).take(MOST_CHARACTERS).collect()
}

/// What a line of the launcher's says: an event, or its status.
fn understand(line: &[u8]) -> Vec<LauncherEvent> {
    match serde_json::from_slice(line) {
        Ok(Message::Event { event }) => vec![happened(event, line)],
        Ok(Message::Answer(Answer::Ok { ok: Report::Status(status), .. })) => {
            let engine = status.engine.map(|kind| LauncherEvent::Engine {
                kind,
                reason: passed_on(&status.engine_reason),
                kvm: passed_on(&status.kvm),
            });
            let state = match status.state {
                State::Running => Some(LauncherEvent::Running),
                State::Paused => Some(LauncherEvent::Paused),
                State::Starting | State::Stopping => None,
            };
            engine.into_iter().chain(state).collect()
        }
        Ok(Message::Answer(_)) | Err(_) => Vec::new(),
    }
}

fn happened(event: Event, line: &[u8]) -> LauncherEvent {
    match event {
        Event::Running => LauncherEvent::Running,
        Event::Paused => LauncherEvent::Paused,
        Event::DiskFailed { disk, reason, paused: true } => {
            LauncherEvent::DiskFailed(passed_on(&format!("disk {disk}: {reason}")))
        }
        _ => {
            let line: Value = serde_json::from_slice(line).unwrap_or_default();
            LauncherEvent::Other(line.get("event").map(Value::to_string).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use protocol::control::Accelerator;

    use super::*;

    fn understood(line: &str) -> Vec<LauncherEvent> {
        understand(line.as_bytes())
    }

    #[test]
    fn events_and_the_first_status_say_the_same() {
        assert_eq!(understood(r#"{"event":{"type":"running"}}"#), [LauncherEvent::Running]);
        assert_eq!(understood(r#"{"id":2,"ok":{"state":"running"}}"#), [LauncherEvent::Running]);
        assert_eq!(understood(r#"{"id":2,"ok":{"state":"starting"}}"#), []);
        assert_eq!(understood(r#"{"event":{"type":"paused"}}"#), [LauncherEvent::Paused]);
        let reset = LauncherEvent::Other(r#"{"byGuest":true,"type":"reset"}"#.to_owned());
        assert_eq!(understood(r#"{"event":{"type":"reset","byGuest":true}}"#), [reset]);
        assert_eq!(understood("{}"), []);
        assert_eq!(understood("nonsense"), []);
    }

    // spec: ISO-7
    #[tokio::test]
    async fn a_launcher_that_never_stops_reporting_is_heard_of_every_state_and_few_events() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let mut launcher = listener.accept().await.unwrap().0;
            // A socket that is closed over what was not read takes what was written with it.
            launcher.read_exact(&mut [0; 50]).await.unwrap();
            let reset = "{\"event\":{\"type\":\"reset\",\"byGuest\":true}}\n".repeat(5000);
            launcher.write_all(reset.as_bytes()).await.unwrap();
            launcher.write_all(b"{\"event\":{\"type\":\"paused\"}}\n").await.unwrap();
            std::future::pending::<()>().await;
        });
        let mut control = Control::of(&path);
        let mut events = 0;
        while let LauncherEvent::Other(_) = control.next().await {
            events += 1;
        }
        // What the five thousand take, on a busy machine, brings back one a second.
        assert!((100..200).contains(&events), "{events}");
    }

    #[test]
    fn a_disk_that_pauses_the_guest_differs_from_one_it_gets_an_error_for() {
        let failed = |paused| {
            let event = json!({"type": "diskFailed", "disk": "root", "reason": "no\u{7} room", "paused": paused});
            understood(&json!({"event": event}).to_string())
        };
        assert_eq!(failed(true), [LauncherEvent::DiskFailed("disk root: no room".to_owned())]);
        assert!(matches!(failed(false).as_slice(), [LauncherEvent::Other(_)]));
    }

    // spec: LAUNCH-6
    #[test]
    fn the_engine_is_reported_with_its_reason_before_the_guest_runs() {
        let engine =
            |kind, reason: &str| LauncherEvent::Engine { kind, reason: reason.to_owned(), kvm: "why".to_owned() };
        let own = json!({"ok": {"state": "running", "engine": "kvm", "engineReason": "demanded", "kvm": "why"}});
        let expected = [engine(EngineKind::Kvm, "demanded"), LauncherEvent::Running];
        assert_eq!(understood(&own.to_string()), expected);
        let older = json!({"ok": {"state": "running", "engine": "qemu", "accelerator": "tcg", "kvm": "why"}});
        let expected = [engine(EngineKind::Qemu(Accelerator::Tcg), ""), LauncherEvent::Running];
        assert_eq!(understood(&older.to_string()), expected);
    }
}
