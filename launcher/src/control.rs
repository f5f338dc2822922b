//! The control socket: one JSON object a line, each answered by one, and a stream of events for who asks for it.
//!
//! The messages are in `protocol::control`.
//! Guarantees: a line is at most 64 KiB, connections are few, and one that does not read is cut off.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use protocol::control::{Answer, Event, Message, Report, Request};
use serde_json::Value;

const MAX_LINE_BYTES: u64 = 64 << 10;
const MAX_CONNECTIONS: usize = 16;
/// Lines a connection may have unread.
const MAX_UNREAD_LINES: usize = 256;
/// How long a line may take to be written.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
const FLUSH_TRIES: u32 = 50;
const FLUSH_PAUSE: Duration = Duration::from_millis(10);

/// A request and the way back.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) request: Request,
    client: Client,
}

/// The sending side of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    lines: SyncSender<Line>,
    unwritten: Arc<AtomicUsize>,
}

/// A line on its way to a client, counted until it is written or dropped.
#[derive(Debug)]
struct Line {
    text: Vec<u8>,
    _count: Counted,
}

/// One of something that is counted, until it is dropped.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn one_of(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }

    /// One of at most `most`.
    fn one_of_at_most(most: usize, count: &Arc<AtomicUsize>) -> Option<Self> {
        let is_free = |count| (count < most).then_some(count + 1);
        count.fetch_update(Ordering::AcqRel, Ordering::Acquire, is_free).ok()?;
        Some(Self(Arc::clone(count)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The socket while it is served.
#[derive(Debug)]
pub(crate) struct Control {
    unwritten: Arc<AtomicUsize>,
}

impl Control {
    /// Waits a moment until clients have the last lines.
    pub(crate) fn finish(self) {
        for _ in 0..FLUSH_TRIES {
            if self.unwritten.load(Ordering::Acquire) == 0 {
                return;
            }
            thread::sleep(FLUSH_PAUSE);
        }
    }
}

impl Call {
    /// Answers; the client comes back for those who want events.
    pub(crate) fn answer(self, result: Result<Report, String>) -> Client {
        let id = self.request.id;
        self.client.send(&Message::Answer(match result {
            Ok(ok) => Answer::Ok { id, ok },
            Err(error) => Answer::Error { id, error },
        }));
        self.client
    }
}

impl Client {
    /// Tells of an event; `false` when the client is gone or does not read.
    pub(crate) fn tell(&self, event: &Event) -> bool {
        self.send(&Message::Event { event: event.clone() })
    }

    fn refuse(&self, id: Value, error: impl Into<String>) -> bool {
        self.send(&Message::Answer(Answer::Error { id, error: error.into() }))
    }

    fn send(&self, message: &Message) -> bool {
        let text = message.to_line();
        self.lines.try_send(Line { text, _count: Counted::one_of(&self.unwritten) }).is_ok()
    }
}

/// Hands every request of every client to `on_call` until the process ends.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn serve(
    listener: UnixListener,
    on_call: impl Fn(Call) -> bool + Clone + Send + 'static,
) -> io::Result<Control> {
    let control = Control { unwritten: Arc::default() };
    let unwritten = Arc::clone(&control.unwritten);
    crate::threads::spawn("control", move || accept(&listener, &on_call, &unwritten))?;
    Ok(control)
}

fn accept(
    listener: &UnixListener,
    on_call: &(impl Fn(Call) -> bool + Clone + Send + 'static),
    unwritten: &Arc<AtomicUsize>,
) {
    let connections = Arc::default();
    for stream in listener.incoming() {
        match stream.and_then(|stream| admit(stream, on_call.clone(), &connections, unwritten)) {
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(%error, "a control connection could not be served");
                // Out of descriptors, most likely: trying again at once would only burn the processor.
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn admit(
    mut stream: UnixStream,
    on_call: impl Fn(Call) -> bool + Send + 'static,
    connections: &Arc<AtomicUsize>,
    unwritten: &Arc<AtomicUsize>,
) -> io::Result<()> {
    if !protocol::socket::is_admitted(&stream) {
        return stream.write_all(b"{\"id\":null,\"error\":\"root and the launcher's own user may ask\"}\n");
    }
    // A client that does not read holds its place for so long at most.
    stream.set_write_timeout(Some(WRITE_PATIENCE))?;
    let Some(place) = Counted::one_of_at_most(MAX_CONNECTIONS, connections) else {
        return stream.write_all(b"{\"id\":null,\"error\":\"too many connections\"}\n");
    };
    let (sender, lines) = sync_channel(MAX_UNREAD_LINES);
    let client = Client { lines: sender, unwritten: Arc::clone(unwritten) };
    let writing = stream.try_clone()?;
    crate::threads::spawn("control-out", move || write_lines(writing, &lines))?;
    crate::threads::spawn("control-in", move || {
        read_requests(stream, client, on_call);
        drop(place);
    })?;
    Ok(())
}

fn write_lines(mut stream: UnixStream, lines: &Receiver<Line>) {
    for line in lines {
        if stream.write_all(&line.text).is_err() {
            break;
        }
    }
    // Wakes the reading thread of a connection that was cut off; one that is closed already is no news.
    drop(stream.shutdown(std::net::Shutdown::Both));
}

fn read_requests(stream: UnixStream, client: Client, on_call: impl Fn(Call) -> bool) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(1..) if line.ends_with(b"\n") => {}
            Ok(read) if read as u64 == MAX_LINE_BYTES => {
                client.refuse(Value::Null, "a line is at most 65536 bytes");
                return;
            }
            _ => return,
        }
        let is_heard = match serde_json::from_slice(&line) {
            Ok(request) => on_call(Call { request, client: client.clone() }),
            Err(error) => client.refuse(id_of(&line), format!("request: {error}")),
        };
        if !is_heard {
            return;
        }
    }
}

/// The id of a request that is otherwise not understood.
fn id_of(line: &[u8]) -> Value {
    serde_json::from_slice::<Value>(line)
        .ok()
        .and_then(|mut value| value.get_mut("id").map(Value::take))
        .unwrap_or_default()
}

#[cfg(test)]
impl Call {
    /// A call, and the lines that its client is sent.
    pub(crate) fn to_be_answered(verb: protocol::control::Verb) -> (Self, impl Iterator<Item = String>) {
        Self::of(Request { id: Value::Null, ..Request::new(0, verb) })
    }

    /// A call with this request, and the lines that its client is sent.
    pub(crate) fn of(request: Request) -> (Self, impl Iterator<Item = String>) {
        let (lines, sent) = sync_channel(MAX_UNREAD_LINES);
        let client = Client { lines, unwritten: Arc::default() };
        (
            Self { request, client },
            std::iter::from_fn(move || {
                sent.try_recv().ok().map(|line: Line| String::from_utf8_lossy(&line.text).into_owned())
            }),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use protocol::control::Verb;
    use serde_json::json;

    use super::*;

    struct Bench {
        _folder: tempfile::TempDir,
        stream: UnixStream,
        calls: mpsc::Receiver<Call>,
    }

    fn bench() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let (call, calls) = mpsc::channel();
        serve(protocol::socket::listen(&path).unwrap(), move |received| call.send(received).is_ok()).unwrap();
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Bench { _folder: folder, stream, calls }
    }

    impl Bench {
        fn send(&mut self, line: &str) {
            self.stream.write_all(line.as_bytes()).unwrap();
        }

        fn line(&self) -> Value {
            let mut line = String::new();
            BufReader::with_capacity(1, &self.stream).read_line(&mut line).unwrap();
            serde_json::from_str(&line).unwrap()
        }
    }

    #[test]
    fn a_request_is_answered_with_its_id() {
        let mut bench = bench();
        bench.send("{\"id\":\"a\",\"verb\":\"stop\",\"graceSeconds\":3}\n");
        let call = bench.calls.recv().unwrap();
        assert_eq!((call.request.verb, call.request.grace_seconds), (Verb::Stop, Some(3)));
        call.answer(Ok(Report::Done {}));
        assert_eq!(bench.line(), json!({"id": "a", "ok": {}}));
    }

    #[test]
    fn what_is_not_understood_is_refused_and_the_next_line_is_read() {
        let mut bench = bench();
        bench.send("{\"id\":1,\"verb\":\"explode\"}\nnonsense\n{\"id\":2,\"verb\":\"status\",\"force\":true}\n");
        assert!(bench.line()["error"].as_str().unwrap().contains("explode"));
        assert_eq!(bench.line()["id"], Value::Null);
        let third = bench.line();
        assert!(third["id"] == 2 && third["error"].as_str().unwrap().contains("force"), "{third}");
        bench.send("{\"id\":3,\"verb\":\"status\"}\n");
        assert_eq!(bench.calls.recv().unwrap().request.verb, Verb::Status);
    }

    #[test]
    fn an_endless_line_ends_the_connection() {
        let mut bench = bench();
        bench.send(&" ".repeat(70_000));
        assert!(bench.line()["error"].as_str().unwrap().contains("65536"));
    }

    #[test]
    fn a_client_that_does_not_read_events_is_cut_off() {
        let mut bench = bench();
        bench.send("{\"verb\":\"events\"}\n");
        let client = bench.calls.recv().unwrap().answer(Ok(Report::Done {}));
        let event = Event::DiskFailed { disk: "root".to_owned(), reason: "x".repeat(1000), paused: false };
        assert!((0..10_000).any(|_| !client.tell(&event)));
    }

    #[test]
    fn the_seventeenth_connection_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        serve(protocol::socket::listen(&path).unwrap(), |_| true).unwrap();
        let streams: Vec<_> = (0..17).map(|_| UnixStream::connect(&path).unwrap()).collect();
        let mut text = String::new();
        BufReader::new(streams.last().unwrap()).read_line(&mut text).unwrap();
        assert!(text.contains("too many"), "{text}");
    }

    // spec: RUN-8
    #[test]
    fn a_connection_that_could_not_be_served_takes_no_place() {
        use crate::few_descriptors::{all_descriptors, inside};
        if !inside(module_path!(), "a_connection_that_could_not_be_served_takes_no_place") {
            return;
        }
        let (connections, unwritten) = (Arc::default(), Arc::default());
        let (_ours, theirs) = UnixStream::pair().unwrap();
        // None is left for its clone.
        let taken = all_descriptors();
        admit(theirs, |_| true, &connections, &unwritten).unwrap_err();
        assert_eq!(connections.load(Ordering::Acquire), 0);
        drop(taken);
        let (ours, theirs) = UnixStream::pair().unwrap();
        admit(theirs, |_| true, &connections, &unwritten).unwrap();
        assert_eq!(connections.load(Ordering::Acquire), 1);
        drop(ours);
        while connections.load(Ordering::Acquire) != 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}
