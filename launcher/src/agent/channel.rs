//! Commands of the QEMU guest agent's protocol (qga/qapi-schema.json) over the host's end of its channel.
//!
//! Flow: `guest-sync-delimited` with a new number, read up to that number, then the command and its answer. So an answer that
//! came too late is never taken for another one's, and a command is sent only to an agent that has just answered.
//! Guarantees: a command ends at its deadline and reads at most [`MOST_BYTES`], whatever the guest does.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::decoder::{Decoder, Message, SENTINEL};

/// What is read for one command: some of the longest lines.
const MOST_BYTES: usize = 2 << 20;

/// How long the agent may take to refuse a command that is not answered when it succeeds.
const REFUSAL: Duration = Duration::from_secs(2);

/// Why a command has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AgentError {
    /// No program in the guest has the channel open.
    #[error("no guest agent is connected")]
    Disconnected,
    /// The processors are stopped, so no agent can answer.
    #[error("the machine is paused: resume it first")]
    Paused,
    /// Requests before this one took all the time.
    #[error("the guest agent is busy with earlier requests")]
    Busy,
    /// It did not answer in time.
    #[error("the guest agent does not answer {0}")]
    Silent(&'static str),
    /// The agent answered a command with an error.
    #[error("the guest agent refuses {command}: {reason}")]
    Refused {
        /// Name of the command in the agent's protocol.
        command: &'static str,
        /// The error of the agent: printable and shortened.
        reason: String,
    },
    /// It wrote more than an answer has.
    #[error("the guest agent's answer to {0} is too long")]
    TooLong(&'static str),
    /// The answer has another shape than the protocol's.
    #[error("the guest agent's answer to {0} is not understood")]
    Shape(&'static str),
    /// The engine has closed the channel.
    #[error("the machine has ended")]
    Ended,
}

/// The host's end of the agent's channel.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
    decoder: Decoder,
    waiting: VecDeque<Message>,
    last_id: u64,
}

impl Channel {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, decoder: Decoder::default(), waiting: VecDeque::new(), last_id: 0 }
    }

    /// Executes a command and waits for what it returns.
    ///
    /// # Errors
    /// The agent refuses, does not answer by the deadline, or answers something else than the protocol has.
    pub(super) fn execute(
        &mut self,
        command: &'static str,
        arguments: &Value,
        deadline: Instant,
    ) -> Result<Value, AgentError> {
        let mut budget = MOST_BYTES;
        self.synchronize(command, deadline, &mut budget)?;
        self.send(command, &request(command, arguments), deadline)?;
        match self.next(command, deadline, &mut budget)? {
            Message::Return(value) => Ok(value),
            Message::Error(reason) => Err(AgentError::Refused { command, reason }),
            Message::TooLong => Err(AgentError::TooLong(command)),
        }
    }

    /// Executes a command that the agent does not answer when it succeeds.
    ///
    /// # Errors
    /// The agent refuses, or has not answered before the command.
    pub(super) fn order(
        &mut self,
        command: &'static str,
        arguments: &Value,
        deadline: Instant,
    ) -> Result<(), AgentError> {
        let mut budget = MOST_BYTES;
        self.synchronize(command, deadline, &mut budget)?;
        self.send(command, &request(command, arguments), deadline)?;
        match self.next(command, deadline.min(now() + REFUSAL), &mut budget) {
            Ok(Message::Error(reason)) => Err(AgentError::Refused { command, reason }),
            _ => Ok(()),
        }
    }

    fn synchronize(&mut self, command: &'static str, deadline: Instant, budget: &mut usize) -> Result<(), AgentError> {
        self.last_id += 1;
        self.waiting.clear();
        let mut bytes = vec![SENTINEL];
        bytes.extend(request("guest-sync-delimited", &json!({"id": self.last_id})));
        self.send(command, &bytes, deadline)?;
        while self.next(command, deadline, budget)? != Message::Return(json!(self.last_id)) {}
        Ok(())
    }

    fn send(&mut self, command: &'static str, bytes: &[u8], deadline: Instant) -> Result<(), AgentError> {
        self.stream.set_write_timeout(Some(left(deadline))).map_err(|_| AgentError::Ended)?;
        self.stream.write_all(bytes).map_err(|error| of_io(&error, command))
    }

    fn next(&mut self, command: &'static str, deadline: Instant, budget: &mut usize) -> Result<Message, AgentError> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(message) = self.waiting.pop_front() {
                return Ok(message);
            }
            if now() >= deadline {
                return Err(AgentError::Silent(command));
            }
            self.stream.set_read_timeout(Some(left(deadline))).map_err(|_| AgentError::Ended)?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(AgentError::Ended),
                Ok(read) => {
                    *budget = budget.checked_sub(read).ok_or(AgentError::TooLong(command))?;
                    let waiting = &mut self.waiting;
                    self.decoder.take(chunk.get(..read).unwrap_or_default(), |message| waiting.push_back(message));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(of_io(&error, command)),
            }
        }
    }
}

fn request(command: &str, arguments: &Value) -> Vec<u8> {
    let mut request = json!({"execute": command});
    if !arguments.is_null() {
        request["arguments"] = arguments.clone();
    }
    let mut bytes = request.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}

fn of_io(error: &std::io::Error, command: &'static str) -> AgentError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => AgentError::Silent(command),
        _ => AgentError::Ended,
    }
}

/// What is left until a deadline; a socket takes no time-out of zero.
fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(now()).max(Duration::from_millis(1))
}

/// The only clock of the agent's thread.
#[expect(clippy::disallowed_methods, reason = "the edge: a guest answers in real time")]
pub(super) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::agent::fake::agent;

    const SOON: Duration = Duration::from_millis(300);

    #[test]
    fn an_answer_that_came_too_late_is_not_another_ones() {
        let (stream, agent) = agent(|line, number| match number {
            0 => vec![],
            // The answer to the first, then the one that is waited for.
            1 => b"{\"return\": 1}\n\xff{\"return\": 2}\n".to_vec(),
            _ if line.contains("guest-ping") => b"{\"return\": {}}\n".to_vec(),
            _ => b"{\"error\": {\"desc\": \"unknown\"}}\n".to_vec(),
        });
        let mut channel = Channel::new(stream);
        assert_eq!(channel.execute("guest-ping", &Value::Null, now() + SOON), Err(AgentError::Silent("guest-ping")));
        assert_eq!(channel.execute("guest-ping", &Value::Null, now() + 10 * SOON), Ok(json!({})));
        drop(channel);
        let lines = agent.join().unwrap();
        assert_eq!(lines.len(), 3, "{lines:?}");
    }

    // spec: AGENT-2
    #[test]
    fn a_guest_that_writes_without_end_is_given_up_on() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let flood = thread::spawn(move || while theirs.write_all(&[b'x'; 4096]).is_ok() {});
        let mut channel = Channel::new(ours);
        let found = channel.execute("guest-ping", &Value::Null, now() + Duration::from_secs(60));
        assert_eq!(found, Err(AgentError::TooLong("guest-ping")));
        drop(channel);
        flood.join().unwrap();
    }

    #[test]
    fn a_command_without_an_answer_succeeds_unless_it_is_refused() {
        for (refusal, expected) in [(&b""[..], true), (b"{\"error\": {\"desc\": \"no shutdown\"}}\n", false)] {
            let (stream, _agent) = agent(move |line, _| match line.contains("sync") {
                true => b"\xff{\"return\": 1}\n".to_vec(),
                false => refusal.to_vec(),
            });
            let ordered = Channel::new(stream).order("guest-shutdown", &json!({"mode": "reboot"}), now() + SOON);
            assert_eq!(ordered.is_ok(), expected, "{ordered:?}");
        }
    }
}
