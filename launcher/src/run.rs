//! The launcher's loop: engine events, control calls and signals in, commands and events out, until the machine ends.
//! Nothing blocks it: the engine answers a command when it is done, from its own thread.

use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use protocol::control::{self, Report, Status, Verb};

use super::agent::{Agent, News};
use super::control::{Call, Client};
use super::engine::{Done, EngineError, Event, Events, Running};
use super::guest_log::GuestLog;
use super::lifecycle::{Lifecycle, VmAction};
use super::network::Lease;
use protocol::outcome::Outcome;

/// Everything the loop waits for.
#[derive(Debug)]
pub(crate) enum Input {
    /// What happened to the machine.
    Engine(Event),
    /// A request on the control socket.
    Call(Call),
    /// SIGTERM or SIGINT: end the guest within the grace period.
    Terminate,
    /// A guest got its address.
    Lease(Lease),
    /// A client that wants to see the guest's screen.
    Viewer(UnixStream),
    /// The agent in the guest.
    Agent(News),
}

/// An engine's events as inputs of the loop. Without a receiver the launcher ends, and the engine with it.
pub(crate) fn events(input: Sender<Input>) -> Events {
    Events::new(move |event| drop(input.send(Input::Engine(event))))
}

/// One machine while it runs.
pub(crate) struct EventLoop<'a> {
    pub(crate) machine: Box<dyn Running>,
    /// Time between the power button and the end by force.
    pub(crate) grace: Duration,
    /// The agent in the guest, where the machine has a channel for it.
    pub(crate) agent: Option<&'a Agent>,
    /// What `status` reports in addition to the state.
    pub(crate) describe: &'a dyn Fn() -> Status,
    /// Answers `counters`.
    pub(crate) count: &'a dyn Fn(Call),
}

impl EventLoop<'_> {
    /// Runs until the machine has ended.
    pub(crate) fn run(mut self, inputs: &Receiver<Input>) -> Outcome {
        let mut lifecycle = Lifecycle::new();
        let mut listeners: Vec<Client> = Vec::new();
        let mut log = GuestLog::new();
        loop {
            match next(inputs, lifecycle.next_deadline()) {
                Next::Input(Input::Engine(event)) => {
                    // A guest can cause events as fast as it likes: all but the last are logged at a limited rate.
                    if matches!(event, Event::Ended(_)) || log.permits() {
                        tracing::info!(?event, "machine");
                    }
                    let outcome = lifecycle.on_event(&event);
                    self.tell_agent(&event);
                    let commands = lifecycle.after_event(&event);
                    if !commands.is_empty() {
                        self.machine.command(commands, Box::new(warn));
                    }
                    if let Some(told) = self.told(&event, outcome.as_ref()) {
                        tell(&mut listeners, &told);
                    }
                    if let Some(outcome) = outcome {
                        return outcome;
                    }
                }
                Next::Input(Input::Lease(lease)) => {
                    if log.permits() {
                        tracing::info!(nic = lease.nic, address = %lease.address, "lease");
                    }
                    tell(&mut listeners, &control::Event::Lease { nic: lease.nic, address: lease.address });
                }
                Next::Input(Input::Terminate) => {
                    let action = VmAction::Stop { grace: self.grace };
                    self.carry_out(&mut lifecycle, action, Box::new(warn));
                }
                Next::Input(Input::Viewer(client)) => self.machine.show(client.into(), Box::new(warn)),
                Next::Input(Input::Agent(News::Changed)) => tell(&mut listeners, &control::Event::Agent),
                Next::Input(Input::Agent(News::NotRebooted(call))) => {
                    self.act(&mut lifecycle, VmAction::Reboot, call);
                }
                Next::Input(Input::Call(call)) => listeners.extend(self.answer(&mut lifecycle, call)),
                Next::Deadline => {
                    if let Some(command) = lifecycle.on_deadline(now()) {
                        self.machine.command(vec![command], Box::new(warn));
                    }
                }
                Next::Gone => {
                    return Outcome::failed(
                        "internal error: all threads that report to the launcher's loop have ended".to_owned(),
                    );
                }
            }
        }
    }

    /// Answers a call; a client that wants events comes back.
    fn answer(&mut self, lifecycle: &mut Lifecycle, call: Call) -> Option<Client> {
        let grace = call.request.grace_seconds.map_or(self.grace, Duration::from_secs);
        let action = match call.request.verb {
            Verb::Status => {
                call.answer(Ok(self.report(lifecycle)));
                return None;
            }
            Verb::Counters => {
                (self.count)(call);
                return None;
            }
            Verb::Events => return Some(call.answer(Ok(self.report(lifecycle)))),
            Verb::Stop => {
                // Accepted: the deadline ends a machine whose engine takes no command.
                self.carry_out(lifecycle, VmAction::Stop { grace }, Box::new(warn));
                call.answer(Ok(Report::Done {}));
                return None;
            }
            Verb::Powerdown => VmAction::Powerdown,
            Verb::Pause => VmAction::Pause,
            Verb::Resume => VmAction::Resume,
            Verb::Reset => VmAction::Reset,
            Verb::SetLink => match self.set_link(&call) {
                Ok(action) => action,
                Err(reason) => {
                    drop(call.answer(Err(reason)));
                    return None;
                }
            },
            Verb::Reboot => {
                match lifecycle.check_reboot() {
                    Ok(()) => self.reboot(lifecycle, call),
                    Err(reason) => drop(call.answer(Err(reason.to_owned()))),
                }
                return None;
            }
            Verb::AgentPing | Verb::AgentInfo | Verb::AgentExecute | Verb::Freeze | Verb::Unfreeze => {
                match self.agent {
                    // It answers, or comes back only with a reboot.
                    Some(agent) => drop(agent.ask(call)),
                    None => drop(call.answer(Err(NO_CHANNEL.to_owned()))),
                }
                return None;
            }
        };
        self.act(lifecycle, action, call);
        None
    }

    /// Which link a call changes, and how.
    fn set_link(&self, call: &Call) -> Result<VmAction, String> {
        let link = call.request.link.as_ref().ok_or("link: required by the verb setLink")?;
        let nics = (self.describe)().nics;
        let nic = nics.iter().position(|nic| nic.name == link.nic);
        let nic = nic.ok_or_else(|| format!("link.nic: the machine has no NIC {:?}", link.nic))?;
        Ok(VmAction::SetLink { nic, up: link.up })
    }

    /// Carries an action out and answers.
    fn act(&mut self, lifecycle: &mut Lifecycle, action: VmAction, call: Call) {
        match lifecycle.on_action(now(), action) {
            Ok(commands) => self.machine.command(commands, Box::new(move |result| answer_with(call, result))),
            Err(reason) => drop(call.answer(Err(reason.to_owned()))),
        }
    }

    /// By the agent, or else by the power button.
    fn reboot(&mut self, lifecycle: &mut Lifecycle, call: Call) {
        let call = match self.agent {
            Some(agent) => agent.ask(call),
            None => Some(call),
        };
        if let Some(call) = call {
            self.act(lifecycle, VmAction::Reboot, call);
        }
    }

    fn tell_agent(&self, event: &Event) {
        let Some(agent) = self.agent else { return };
        match event {
            Event::AgentPort { is_open } => agent.on_port(*is_open),
            Event::Running => agent.on_running(true),
            Event::Paused | Event::DiskFailed { paused: true, .. } => agent.on_running(false),
            _ => {}
        }
    }

    fn carry_out(&mut self, lifecycle: &mut Lifecycle, action: VmAction, done: Done) {
        if let (VmAction::Stop { .. }, Some(agent)) = (action, self.agent) {
            agent.power_off();
        }
        match lifecycle.on_action(now(), action) {
            Ok(commands) => self.machine.command(commands, done),
            Err(reason) => tracing::warn!(?action, reason, "not possible"),
        }
    }

    /// An event as clients are told of it; the end follows a shutdown, or its reset does.
    fn told(&self, event: &Event, outcome: Option<&Outcome>) -> Option<control::Event> {
        Some(match event.clone() {
            Event::ShutDown | Event::AgentPort { .. } => return None,
            Event::Running => control::Event::Running,
            Event::Paused => control::Event::Paused,
            Event::Reset { by_guest } => control::Event::Reset { by_guest },
            Event::Link { nic, up } => control::Event::Link { nic: (self.describe)().nics.get(nic)?.name.clone(), up },
            Event::Watchdog(action) => control::Event::Watchdog { action },
            Event::DiskFailed { disk, reason, paused } => control::Event::DiskFailed { disk, reason, paused },
            Event::Ended(_) => control::Event::Ended { outcome: outcome.cloned() },
        })
    }

    fn report(&self, lifecycle: &Lifecycle) -> Report {
        let mut status = (self.describe)();
        for (place, nic) in status.nics.iter_mut().enumerate() {
            nic.link_down = lifecycle.link(place).map_or(nic.link_down, |up| !up);
        }
        Report::Status(Box::new(Status {
            state: lifecycle.state(),
            resets: lifecycle.resets(),
            watchdog_fired: lifecycle.watchdog_fired(),
            ..status
        }))
    }
}

const NO_CHANNEL: &str = "this engine has no channel for an agent in the guest";

fn answer_with(call: Call, result: Result<(), EngineError>) {
    // The client comes back for those who want events.
    drop(call.answer(result.map(|()| Report::Done {}).map_err(|error| error.to_string())));
}

fn warn(result: Result<(), EngineError>) {
    if let Err(error) = result {
        tracing::warn!(%error, "the engine did not execute a command");
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

fn tell(listeners: &mut Vec<Client>, event: &control::Event) {
    listeners.retain(|listener| listener.tell(event));
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use protocol::outcome::Verdict;

    use crate::engine::{Command, Ending};

    /// A machine that never says that a command is done, and ends when it is killed.
    struct Stuck {
        events: mpsc::Sender<Input>,
        commands: mpsc::Sender<Command>,
        waiting: Vec<Done>,
    }

    impl Running for Stuck {
        fn command(&mut self, commands: Vec<Command>, done: Done) {
            for command in commands {
                self.commands.send(command).unwrap();
                if command == Command::Kill {
                    self.events.send(Input::Engine(Event::Ended(Ending::Killed))).unwrap();
                }
            }
            self.waiting.push(done);
        }
    }

    // spec: RUN-6
    #[test]
    fn a_stuck_engine_holds_up_neither_sigterm_nor_its_deadline() {
        let (input, inputs) = mpsc::channel();
        let (command, commands) = mpsc::channel();
        let machine = Stuck { events: input.clone(), commands: command, waiting: Vec::new() };
        input.send(Input::Engine(Event::Running)).unwrap();
        let describe = || Status::new(control::State::Starting);
        let grace = Duration::from_millis(50);
        let (call, mut answered) = Call::to_be_answered(Verb::Pause);
        input.send(Input::Call(call)).unwrap();
        input.send(Input::Terminate).unwrap();
        let outcome = EventLoop { machine: Box::new(machine), grace, agent: None, describe: &describe, count: &drop }
            .run(&inputs);
        assert_eq!((outcome.outcome, outcome.requested), (Verdict::Killed, true));
        assert_eq!(commands.try_iter().collect::<Vec<_>>(), [Command::Pause, Command::Powerdown, Command::Kill]);
        assert!(answered.next().is_none(), "answered before it was done");
    }

    /// A machine that does at once what it is told.
    struct Prompt(Events);

    impl Running for Prompt {
        fn command(&mut self, commands: Vec<Command>, done: Done) {
            for command in commands {
                self.0.send(match command {
                    Command::Pause => Event::Paused,
                    Command::SetLink { nic, up } => Event::Link { nic, up },
                    _ => Event::Ended(Ending::Killed),
                });
            }
            done(Ok(()));
        }
    }

    fn wait() -> Option<String> {
        std::thread::sleep(Duration::from_millis(10));
        None
    }

    // spec: RUN-6
    #[test]
    fn a_client_that_was_told_of_a_pause_sees_it() {
        let (input, inputs) = mpsc::channel();
        input.send(Input::Engine(Event::Running)).unwrap();
        let machine = Box::new(Prompt(events(input.clone())));
        let (pause, mut paused) = Call::to_be_answered(Verb::Pause);
        input.send(Input::Call(pause)).unwrap();
        let client = std::thread::spawn(move || {
            let paused = (0..1000).find_map(|_| paused.next().or_else(wait));
            let (status, mut told) = Call::to_be_answered(Verb::Status);
            input.send(Input::Call(status)).unwrap();
            let told = (0..1000).find_map(|_| told.next().or_else(wait));
            input.send(Input::Terminate).unwrap();
            (paused.unwrap_or_default(), told.unwrap_or_default())
        });
        let describe = || Status::new(control::State::Starting);
        EventLoop { machine, grace: Duration::ZERO, agent: None, describe: &describe, count: &drop }.run(&inputs);
        let (paused, told) = client.join().unwrap();
        assert!(paused.contains("\"ok\"") && told.contains("\"state\":\"paused\""), "{paused}{told}");
    }

    // spec: LAUNCH-12
    #[test]
    fn a_link_that_was_changed_is_in_the_status_and_an_unknown_one_is_refused() {
        let (input, inputs) = mpsc::channel();
        let machine = Box::new(Prompt(events(input.clone())));
        let ask = |verb, nic: Option<&str>| {
            let link = nic.map(|nic| control::Link { nic: nic.to_owned(), up: false });
            Call::of(control::Request { link, ..control::Request::new(1, verb) })
        };
        let calls = [
            ask(Verb::SetLink, Some("blue")),
            ask(Verb::SetLink, Some("green")),
            ask(Verb::SetLink, None),
            ask(Verb::Events, None),
        ];
        let (calls, answers): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
        let mut calls = calls.into_iter();
        for call in calls.by_ref().take(3) {
            input.send(Input::Call(call)).unwrap();
        }
        let describe = || {
            let nic = |name: &str| control::NicStatus::new(name, "02:00:00:00:00:01".parse().unwrap());
            Status { nics: vec![nic("default"), nic("blue")], ..Status::new(control::State::Starting) }
        };
        let client = std::thread::spawn(move || {
            let mut answers = answers.into_iter();
            let mut next = || {
                let mut lines = answers.next().unwrap();
                (0..1000).find_map(|_| lines.next().or_else(wait)).unwrap_or_default()
            };
            let changed = [next(), next(), next()];
            calls.for_each(|call| input.send(Input::Call(call)).unwrap());
            let status = next();
            input.send(Input::Terminate).unwrap();
            (changed, status)
        });
        EventLoop { machine, grace: Duration::ZERO, agent: None, describe: &describe, count: &drop }.run(&inputs);
        let ([done, unknown, missing], status) = client.join().unwrap();
        assert!(done.contains("\"ok\""), "{done}");
        assert!(unknown.contains("the machine has no NIC") && missing.contains("link: required"), "{unknown}{missing}");
        assert_eq!(status.matches("\"linkDown\":true").count(), 1, "{status}");
        let at = |text: &str| status.find(text);
        assert!(at("\"blue\"") < at("\"linkDown\":true"), "{status}");
    }

    #[test]
    fn an_engine_that_is_gone_without_an_ending_is_a_failure() {
        let (input, inputs) = mpsc::channel();
        let machine = Box::new(Prompt(Events::new(|_| ())));
        drop(events(input));
        let describe = || Status::new(control::State::Starting);
        let outcome =
            EventLoop { machine, grace: Duration::ZERO, agent: None, describe: &describe, count: &drop }.run(&inputs);
        assert_eq!((outcome.outcome, outcome.reason.as_str()), (Verdict::Failed, "the engine has stopped reporting"));
    }

    #[test]
    fn a_stop_is_answered_when_it_is_accepted() {
        let (input, inputs) = mpsc::channel();
        let (command, _commands) = mpsc::channel();
        let machine = Stuck { events: input.clone(), commands: command, waiting: Vec::new() };
        let (call, mut answered) = Call::to_be_answered(Verb::Stop);
        input.send(Input::Call(call)).unwrap();
        let describe = || Status::new(control::State::Starting);
        let grace = Duration::from_millis(50);
        EventLoop { machine: Box::new(machine), grace, agent: None, describe: &describe, count: &drop }.run(&inputs);
        assert!(answered.next().is_some_and(|line| line.contains("\"ok\"")));
    }
}
