//! QEMU's monitor protocol (docs/interop/qmp-spec.txt): one JSON object a line, over a descriptor QEMU inherited.
//!
//! Flow: greeting, `qmp_capabilities`, then commands with an id and their answers in order, events at any time.
//! Guarantees: a line is at most [`MAX_LINE_BYTES`]; what is not understood is passed over, never believed.
//! Assumptions: the peer may have been taken over by its guest, so nothing it says is trusted beyond its type.

use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Map, Value, json};

use crate::engine::EngineError;

/// The longest line that is read; the longest honest one is the answer to a query of blocks, far below.
pub(crate) const MAX_LINE_BYTES: u64 = 1 << 20;

/// Answers that may wait to be read. Commands are given one at a time, so an honest QEMU never has two on their way.
pub(crate) const MOST_ANSWERS: usize = 16;

/// The longest text of QEMU's that is passed on; the longest honest one is a line of an error.
const MOST_CHARS: usize = 500;

/// How long a command may take before QEMU counts as stuck.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long its start may take: it loads its libraries, the firmware and what the guest boots from, on a host that may be busy.
const START_PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Message {
    /// The first line; holds the version.
    Greeting {
        /// Version of QEMU: `major.minor.micro`.
        version: String,
    },
    /// A command's result, or QEMU's reason for not doing it.
    Answer {
        /// The id that the command was sent with.
        id: u64,
        /// What the command returns; `desc` of the error if QEMU refuses it.
        result: Result<Value, String>,
    },
    /// QEMU reports an event.
    Event {
        /// Its name in QEMU's schema.
        name: String,
        /// Its arguments; empty if it has none.
        data: Map<String, Value>,
    },
}

/// Reads one line; `None` when it is nothing this client waits for.
pub(crate) fn parse(line: &[u8]) -> Option<Message> {
    let Ok(Value::Object(mut object)) = serde_json::from_slice(line) else { return None };
    if let Some(greeting) = object.get("QMP") {
        let number = |key: &str| greeting.pointer(&format!("/version/qemu/{key}")).and_then(Value::as_u64);
        let version = format!("{}.{}.{}", number("major")?, number("minor")?, number("micro")?);
        return Some(Message::Greeting { version });
    }
    if let Some(Value::String(name)) = object.remove("event") {
        let data = match object.remove("data") {
            Some(Value::Object(data)) => data,
            _ => Map::new(),
        };
        return Some(Message::Event { name, data });
    }
    let id = object.get("id")?.as_u64()?;
    if let Some(value) = object.remove("return") {
        return Some(Message::Answer { id, result: Ok(value) });
    }
    let reason = shortened(object.get("error")?.get("desc")?.as_str()?);
    Some(Message::Answer { id, result: Err(reason) })
}

/// Text for logs, messages and files, whatever its sender meant by its length.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(MOST_CHARS).collect()
}

/// Reads lines until the peer closes, handing answers to the client and events to `on_event`.
pub(crate) fn read_all(
    stream: impl Read,
    answers: &SyncSender<Message>,
    mut on_event: impl FnMut(&str, &Map<String, Value>),
) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(read) if read > 0 && line.ends_with(b"\n") => {}
            // Closed, broken, or a line beyond all measure: either way there is no protocol any more.
            _ => return,
        }
        match parse(&line) {
            Some(Message::Event { name, data }) => on_event(&name, &data),
            Some(message) => match answers.try_send(message) {
                // More answers than were ever asked for: what sends them is no honest QEMU, and ends here.
                Err(TrySendError::Full(_)) => return,
                // A client that is gone asks nothing any more; events still count.
                Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            },
            None => tracing::debug!(bytes = line.len(), "passed over a monitor line"),
        }
    }
}

/// The commanding end of a QMP connection, past the greeting.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    answers: Receiver<Message>,
    last_id: u64,
}

impl Client {
    /// A client that writes to `stream` and gets what [`read_all`] hands on.
    pub(crate) fn new(stream: UnixStream, answers: Receiver<Message>) -> Self {
        Self { stream, answers, last_id: 0 }
    }

    /// Waits for the greeting and answers it; QEMU's version comes back.
    pub(crate) fn negotiate(&mut self) -> Result<String, EngineError> {
        let version = loop {
            if let Message::Greeting { version } = self.next("its greeting", START_PATIENCE)? {
                break version;
            }
        };
        self.execute("qmp_capabilities", Map::new())?;
        Ok(version)
    }

    /// Executes a command and waits for its answer.
    pub(crate) fn execute(
        &mut self,
        command: &'static str,
        arguments: Map<String, Value>,
    ) -> Result<Value, EngineError> {
        self.execute_with(command, arguments, None)
    }

    /// Executes a command that takes a descriptor, and waits for its answer.
    pub(crate) fn execute_with(
        &mut self,
        command: &'static str,
        arguments: Map<String, Value>,
        descriptor: Option<OwnedFd>,
    ) -> Result<Value, EngineError> {
        self.last_id += 1;
        let mut text = json!({"execute": command, "arguments": arguments, "id": self.last_id}).to_string();
        text.push('\n');
        match descriptor {
            Some(descriptor) => self.send(text.as_bytes(), &descriptor),
            None => self.stream.write_all(text.as_bytes()),
        }
        .map_err(|_| EngineError::Ended)?;
        loop {
            match self.next(command, PATIENCE)? {
                Message::Answer { id, result } if id == self.last_id => {
                    return result.map_err(|reason| EngineError::Refused { command, reason });
                }
                // The answer to a command that was given up on.
                _ => continue,
            }
        }
    }

    /// Sends a line with a descriptor: with its first byte, as unix(7) has it.
    fn send(&mut self, text: &[u8], descriptor: &OwnedFd) -> io::Result<()> {
        let (fds, part) = ([descriptor.as_raw_fd()], [IoSlice::new(text)]);
        let rights = [ControlMessage::ScmRights(&fds)];
        let sent = sendmsg::<()>(self.stream.as_raw_fd(), &part, &rights, MsgFlags::empty(), None)?;
        self.stream.write_all(text.get(sent..).unwrap_or_default())
    }

    fn next(&self, command: &'static str, patience: Duration) -> Result<Message, EngineError> {
        self.answers.recv_timeout(patience).map_err(|error| match error {
            RecvTimeoutError::Timeout => EngineError::Silent { command, seconds: patience.as_secs() },
            RecvTimeoutError::Disconnected => EngineError::Ended,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn greeting_answers_and_events_are_told_apart() {
        let greeting = br#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "x"}, "capabilities": ["oob"]}}"#;
        assert_eq!(parse(greeting), Some(Message::Greeting { version: "7.2.22".into() }));
        assert_eq!(
            parse(br#"{"return": {"status": "running"}, "id": 4}"#),
            Some(Message::Answer { id: 4, result: Ok(json!({"status": "running"})) })
        );
        assert_eq!(
            parse(br#"{"id": 5, "error": {"class": "GenericError", "desc": "no"}}"#),
            Some(Message::Answer { id: 5, result: Err("no".into()) })
        );
        let event = parse(br#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}"#);
        assert_eq!(event, Some(Message::Event { name: "STOP".into(), data: Map::new() }));
    }

    #[test]
    fn hostile_lines_are_passed_over() {
        let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
        for line in [
            &b""[..],
            b"\n",
            b"{",
            b"null",
            b"[]",
            b"\xff\xfe{}",
            br#"{"event": 7}"#,
            br#"{"return": {}}"#,
            br#"{"return": {}, "id": "1"}"#,
            br#"{"return": {}, "id": -1}"#,
            br#"{"id": 1, "error": "text"}"#,
            br#"{"QMP": {"version": {"qemu": {"major": "7"}}}}"#,
            br#"{"QMP": []}"#,
            &deep,
        ] {
            assert_eq!(parse(line), None, "{}", String::from_utf8_lossy(&line[..line.len().min(40)]));
        }
    }

    #[test]
    fn an_event_with_odd_arguments_has_none() {
        let event = parse(br#"{"event": "RESET", "data": [1, 2]}"#);
        assert_eq!(event, Some(Message::Event { name: "RESET".into(), data: Map::new() }));
    }

    fn peer(script: impl FnOnce(UnixStream) + Send + 'static) -> (Client, Receiver<String>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (answer, answers) = mpsc::sync_channel(MOST_ANSWERS);
        let (event, events) = mpsc::channel();
        let reading = ours.try_clone().unwrap();
        thread::spawn(move || read_all(reading, &answer, |name, _| event.send(name.to_owned()).unwrap()));
        thread::spawn(move || script(theirs));
        (Client::new(ours, answers), events)
    }

    #[test]
    fn a_client_finds_its_answer_between_events_and_stale_answers() {
        let (mut client, events) = peer(|mut stream| {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            stream.write_all(b"{\"QMP\":{\"version\":{\"qemu\":{\"major\":8,\"minor\":0,\"micro\":1}}}}\r\n").unwrap();
            assert!(lines.next().unwrap().unwrap().contains("qmp_capabilities"));
            stream.write_all(b"{\"return\":{},\"id\":1}\n").unwrap();
            assert!(lines.next().unwrap().unwrap().contains("\"id\":2"));
            stream
                .write_all(b"nonsense\n{\"event\":\"RESUME\"}\n{\"return\":1,\"id\":1}\n{\"return\":2,\"id\":2}\n")
                .unwrap();
        });
        assert_eq!(client.negotiate().unwrap(), "8.0.1");
        assert_eq!(client.execute("query", Map::new()).unwrap(), json!(2));
        assert_eq!(events.recv().unwrap(), "RESUME");
    }

    // spec: FUZZ-6
    #[test]
    fn unsolicited_answers_end_the_protocol_before_they_fill_memory() {
        let flood = b"{\"return\":{},\"id\":1}\n".repeat(10_000);
        let (answer, answers) = mpsc::sync_channel(MOST_ANSWERS);
        read_all(&flood[..], &answer, |_, _| ());
        assert_eq!(answers.try_iter().count(), MOST_ANSWERS);
    }

    #[test]
    fn a_reason_of_any_length_is_passed_on_shortened() {
        let line = json!({"id": 1, "error": {"desc": "é".repeat(500_000)}}).to_string();
        let Some(Message::Answer { result: Err(reason), .. }) = parse(line.as_bytes()) else { panic!("no answer") };
        assert_eq!(reason.chars().count(), MOST_CHARS);
    }

    #[test]
    fn a_line_without_end_ends_the_protocol() {
        let (mut client, _events) = peer(|mut stream| {
            // The peer's write fails when the reader turns its back; that is the point.
            let _ = stream.write_all(&vec![b' '; 2 << 20]);
        });
        assert!(matches!(client.negotiate(), Err(EngineError::Ended)));
    }

    #[test]
    fn a_descriptor_travels_with_its_command() {
        use std::io::IoSliceMut;

        use nix::sys::socket::{ControlMessageOwned, recvmsg};

        let (mut client, _events) = peer(|stream| {
            let mut text = [0; 4096];
            let mut part = [IoSliceMut::new(&mut text)];
            let mut space = nix::cmsg_space!([i32; 1]);
            let message = recvmsg::<()>(stream.as_raw_fd(), &mut part, Some(&mut space), MsgFlags::empty()).unwrap();
            let rights = message.cmsgs().unwrap().find_map(|message| match message {
                ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
                _ => None,
            });
            nix::sys::socket::send(rights.unwrap(), b"seen", MsgFlags::empty()).unwrap();
            (&stream).write_all(b"{\"return\": {}, \"id\": 1}\n").unwrap();
        });
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        client.execute_with("getfd", Map::new(), Some(theirs.into())).unwrap();
        let mut seen = [0; 4];
        ours.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"seen");
    }
}
