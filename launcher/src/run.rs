//! The launcher's loop: engine events, control calls and signals in, commands and news out, until the machine ends.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use machine::WatchdogAction;
use protocol::control::Verb;
use serde_json::{Value, json};

use super::control::{Call, Client};
use super::engine::{Command, Event, Running};
use super::lifecycle::{Lifecycle, Wish};
use super::network::Lease;
use protocol::outcome::Outcome;

/// Everything the loop waits for.
#[derive(Debug)]
pub(crate) enum Input {
    /// The engine's news.
    Engine(Event),
    /// A client's request.
    Call(Call),
    /// SIGTERM or SIGINT.
    Terminate,
    /// A guest got its address.
    Lease(Lease),
}

/// One machine while it runs.
pub(crate) struct Supervision<'a> {
    /// The machine.
    pub(crate) machine: Box<dyn Running>,
    /// Time between the power button and the end by force.
    pub(crate) grace: Duration,
    /// What `status` tells beside the state.
    pub(crate) describe: &'a dyn Fn() -> Value,
}

impl Supervision<'_> {
    /// Runs until the machine has ended.
    pub(crate) fn run(mut self, inputs: &Receiver<Input>) -> Outcome {
        let mut lifecycle = Lifecycle::new();
        let mut listeners: Vec<Client> = Vec::new();
        loop {
            match next(inputs, lifecycle.next_deadline()) {
                Next::Input(Input::Engine(event)) => {
                    tracing::info!(?event, "machine");
                    let outcome = lifecycle.on_event(&event);
                    tell(&mut listeners, &event_line(&event, outcome.as_ref()));
                    if let Some(outcome) = outcome {
                        return outcome;
                    }
                }
                Next::Input(Input::Lease(lease)) => {
                    tracing::info!(nic = lease.nic, address = %lease.address, "lease");
                    tell(&mut listeners, &json!({"type": "lease", "nic": lease.nic, "address": lease.address}));
                }
                Next::Input(Input::Terminate) => {
                    let grace = self.grace;
                    if let Err(reason) = self.grant(&mut lifecycle, Wish::Stop { grace }) {
                        tracing::warn!(reason, "asked to end");
                    }
                }
                Next::Input(Input::Call(call)) => listeners.extend(self.answer(&mut lifecycle, call)),
                Next::Deadline => {
                    if let Some(command) = lifecycle.on_deadline(now()) {
                        self.order(command);
                    }
                }
                Next::Gone => return Outcome::failed("nobody reports any more".to_owned()),
            }
        }
    }

    /// Answers a call; a client that wants events comes back.
    fn answer(&mut self, lifecycle: &mut Lifecycle, call: Call) -> Option<Client> {
        let grace = call.request.grace_seconds.map_or(self.grace, Duration::from_secs);
        let wish = match call.request.verb {
            Verb::Status => {
                call.answer(Ok(self.status(lifecycle)));
                return None;
            }
            Verb::Events => return Some(call.answer(Ok(self.status(lifecycle)))),
            Verb::Powerdown => Wish::Powerdown,
            Verb::Stop => Wish::Stop { grace },
            Verb::Pause => Wish::Pause,
            Verb::Resume => Wish::Resume,
            Verb::Reset => Wish::Reset,
        };
        let result = self.grant(lifecycle, wish).map(|()| json!({}));
        call.answer(result);
        None
    }

    fn grant(&mut self, lifecycle: &mut Lifecycle, wish: Wish) -> Result<(), String> {
        let commands = lifecycle.on_wish(now(), wish)?;
        commands.into_iter().try_for_each(|command| self.machine.command(command).map_err(|error| error.to_string()))
    }

    fn order(&mut self, command: Command) {
        if let Err(error) = self.machine.command(command) {
            tracing::warn!(?command, %error, "the engine did not take a command");
        }
    }

    fn status(&self, lifecycle: &Lifecycle) -> Value {
        let mut status = (self.describe)();
        status["state"] = json!(lifecycle.state());
        status["resets"] = json!(lifecycle.resets());
        status["watchdogFired"] = json!(lifecycle.watchdog_fired());
        status
    }
}

enum Next {
    Input(Input),
    Deadline,
    Gone,
}

fn next(inputs: &Receiver<Input>, deadline: Option<Instant>) -> Next {
    let Some(deadline) = deadline else {
        return inputs.recv().map_or(Next::Gone, Next::Input);
    };
    match inputs.recv_timeout(deadline.saturating_duration_since(now())) {
        Ok(input) => Next::Input(input),
        Err(RecvTimeoutError::Timeout) => Next::Deadline,
        Err(RecvTimeoutError::Disconnected) => Next::Gone,
    }
}

#[expect(clippy::disallowed_methods, reason = "the edge: the loop's clock")]
fn now() -> Instant {
    Instant::now()
}

fn tell(listeners: &mut Vec<Client>, line: &Value) {
    listeners.retain(|listener| listener.tell(line));
}

fn event_line(event: &Event, outcome: Option<&Outcome>) -> Value {
    match event {
        Event::Running => json!({"type": "running"}),
        Event::Paused => json!({"type": "paused"}),
        Event::Reset { by_guest } => json!({"type": "reset", "byGuest": by_guest}),
        Event::Watchdog(action) => {
            let action = match action {
                WatchdogAction::Poweroff => "poweroff",
                WatchdogAction::Reset => "reset",
                WatchdogAction::Shutdown => "shutdown",
            };
            json!({"type": "watchdog", "action": action})
        }
        Event::DiskFailed { disk, reason, paused } => {
            json!({"type": "diskFailed", "disk": disk, "reason": reason, "paused": paused})
        }
        Event::Ended(_) => json!({"type": "ended", "outcome": outcome}),
    }
}
