//! The agent in the guest (QEMU guest agent): asked over its channel by a thread of its own, so that the launcher's loop never
//! waits for a guest.
//!
//! Flow: the engine reports that the guest has opened its end → the thread asks, at once and by the clock → what it finds is in
//! `status`, and an event says so. Requests that need the agent are answered by the thread.
//! Guarantees: nothing the guest writes blocks, floods or panics the launcher; what of it is passed on is bounded text.

mod answers;
mod channel;
mod credentials;
pub(crate) mod decoder;
#[cfg(test)]
mod fake;
mod guest;
mod worker;

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use machine::AgentUse;
use protocol::agent::AgentStatus;
use protocol::control::Verb;

use crate::control::Call;
use channel::{AgentError, Channel, now};
use credentials::Credentials;
use guest::Guest;
use worker::Worker;

/// Requests that may wait while the agent executes one.
const MOST_WAITING: usize = 16;

/// The way to the thread. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Agent {
    jobs: SyncSender<Job>,
    link: Arc<Link>,
}

/// Something for the thread to do.
#[derive(Debug)]
enum Job {
    /// A request that the agent answers, and when it arrived.
    Call(Call, Instant),
    /// Ask the guest to power off.
    PowerOff,
    /// Something of the link has changed.
    Look,
}

/// What the agent's thread reports to the launcher's loop.
#[derive(Debug)]
pub(crate) enum News {
    /// [`Agent::status`] returns something else than before.
    Changed,
    /// The agent could not reboot the guest, as was asked.
    NotRebooted(Call),
}

/// What the thread and the launcher's loop know of each other.
#[derive(Debug)]
struct Link(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How often the guest has opened its end.
    opened: u64,
    is_open: bool,
    /// Whether the processors run; a paused guest answers nothing.
    runs: bool,
    status: AgentStatus,
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The fields are whole after every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often the guest has opened its end, whether it is open, and whether the processors run.
    fn port(&self) -> (u64, bool, bool) {
        let state = self.lock();
        (state.opened, state.is_open, state.runs)
    }

    /// Puts a status in the place of the earlier; whether they differ.
    fn replace(&self, status: AgentStatus) -> bool {
        let mut state = self.lock();
        let differs = state.status != status;
        state.status = status;
        differs
    }
}

impl Agent {
    /// Starts the thread on the host's end of the channel.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(crate) fn start(
        stream: UnixStream,
        used: AgentUse,
        tell: impl Fn(News) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let link = Arc::new(Link(Mutex::default()));
        let (sender, jobs) = sync_channel(MOST_WAITING);
        let guest = Guest::new(Channel::new(stream));
        let worker = Worker::new(Arc::clone(&link), jobs, guest, Credentials::new(used), tell);
        crate::threads::spawn("agent", move || worker.run())?;
        Ok(Self { jobs: sender, link })
    }

    /// Takes in that the guest has opened its end, or closed it.
    pub(crate) fn on_port(&self, is_open: bool) {
        let mut state = self.link.lock();
        state.opened += u64::from(is_open);
        state.is_open = is_open;
        drop(state);
        self.wake();
    }

    /// Takes in that the processors run, or do not.
    pub(crate) fn on_running(&self, runs: bool) {
        self.link.lock().runs = runs;
        self.wake();
    }

    /// A thread with jobs wakes without this one.
    fn wake(&self) {
        drop(self.jobs.try_send(Job::Look));
    }

    /// What is known of the agent.
    pub(crate) fn status(&self) -> AgentStatus {
        self.link.lock().status.clone()
    }

    /// Lets the agent answer a request; one that asks for a reboot comes back when there is no agent that could.
    pub(crate) fn ask(&self, call: Call) -> Option<Call> {
        let is_open = self.link.lock().is_open;
        let refused = match is_open {
            true => match self.jobs.try_send(Job::Call(call, now())) {
                Ok(()) => return None,
                Err(TrySendError::Full(Job::Call(call, _))) => Some((call, AgentError::Busy)),
                Err(TrySendError::Disconnected(Job::Call(call, _))) => Some((call, AgentError::Ended)),
                Err(_) => None,
            },
            false => Some((call, AgentError::Disconnected)),
        };
        let (call, error) = refused?;
        if call.request.verb == Verb::Reboot {
            return Some(call);
        }
        drop(call.answer(Err(error.to_string())));
        None
    }

    /// Asks the guest to power off, if an agent is there.
    pub(crate) fn power_off(&self) {
        if self.link.lock().is_open {
            // The power button is pressed as well.
            drop(self.jobs.try_send(Job::PowerOff));
        }
    }
}

/// Reads what a guest wrote on its channel, piece by piece: what is passed on of each message, whatever the command was. A
/// fuzzer feeds this function.
#[must_use]
pub fn agent_heard(bytes: &[u8], piece: usize) -> Vec<serde_json::Value> {
    let mut decoder = decoder::Decoder::default();
    let mut heard = Vec::new();
    for part in bytes.chunks(piece.max(1)) {
        decoder.take(part, |message| {
            heard.push(match message {
                decoder::Message::Return(value) => answers::all(&value),
                decoder::Message::Error(reason) => reason.into(),
                decoder::Message::TooLong => serde_json::Value::Null,
            });
        });
    }
    heard
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
