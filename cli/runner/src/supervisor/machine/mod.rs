//! The supervisor's decisions: a state machine without I/O, clock or tasks.
//!
//! *Flow:* [`SupervisorInput`]s and the time go in, [`SupervisorAction`]s come out, in the order of their execution. The
//! event loop executes them and returns their results as further inputs.
//! *Guarantees:* a running guest is ended by a request, its liveness probe or a signal only, never because a file or a
//! Service could not be updated; every client that waits is answered, at the latest when the VM has ended.
//! *Assumptions:* the caller feeds [`SupervisorInput::Time`] at [`Machine::next_deadline`].

mod end;
mod guest;
mod io;

use std::time::Duration;

use api::run_strategy::{FailedStarts, NextStep, decide};

pub(super) use self::end::End;
use self::guest::Guest;
pub(super) use self::io::{Attached, LauncherExit, Now, SupervisorAction, SupervisorInput};
use super::pod::StartFailure;
use crate::protocol::{Report, Request};
use crate::record::{Kind, Phase, Status};

/// How soon a status that could not be written is written again.
const SAVE_RETRY: Duration = Duration::from_secs(1);

/// How long a report that the guest runs waits until Services lead to it.
const SERVICES_PATIENCE: Duration = Duration::from_secs(5);

/// One VM from its networks to its end. `C` is a client that waits for an answer.
#[derive(Debug)]
pub(super) struct Machine<C> {
    status: Status,
    /// In 0..=1; spreads the delays of VMs that fail together.
    spread: f32,
    has_readiness_probe: bool,
    state: State,
    requests: VmRequests<C>,
    failed_starts: FailedStarts,
    /// Whether a guest of this VM ever ran under this supervisor.
    has_run: bool,
    /// Whether the user was told that the guest is emulated.
    is_emulated: bool,
    saving: Saving<C>,
    /// Reports that wait until Services lead to the guest, and until when.
    held: Vec<SupervisorAction<C>>,
    held_until: Option<Duration>,
    actions: Vec<SupervisorAction<C>>,
}

/// What the supervisor is doing.
#[derive(Debug)]
enum State {
    /// Networks are attached; plugins are not interrupted half-way.
    Attaching,
    /// The launcher is being started.
    Launching,
    /// A launcher runs; the guest may not run yet.
    Guest(Guest),
    /// The next start waits for its back-off.
    BackOff { until: Duration },
    /// Networks are being detached; how the VM ended is recorded after that.
    Detaching(End),
    /// What is left is recorded, or the record removed.
    Forgetting { end: End, left: Option<String>, remove: bool },
    /// Nothing is left to do.
    Ended,
}

/// User requests beyond what the run strategy says.
#[derive(Debug)]
struct VmRequests<C> {
    stop: bool,
    restart: bool,
    remove: bool,
    waiting_for_end: Vec<C>,
    waiting_for_run: Vec<C>,
}

/// Whether the status is to be written, and which clients wait for that.
#[derive(Debug)]
struct Saving<C> {
    is_changed: bool,
    /// When to try again after a failure.
    retry_at: Option<Duration>,
    /// Clients whose `keep` is answered once it is written.
    keepers: Vec<C>,
}

impl<C: Clone> Machine<C> {
    /// A machine for a VM that was recorded and has nothing on the host yet, and its first actions.
    pub(super) fn start(status: Status, spread: f32, has_readiness_probe: bool) -> (Self, Vec<SupervisorAction<C>>) {
        let requests = VmRequests {
            stop: false,
            restart: false,
            remove: false,
            waiting_for_end: Vec::new(),
            waiting_for_run: Vec::new(),
        };
        let machine = Self {
            status,
            spread,
            has_readiness_probe,
            state: State::Attaching,
            requests,
            failed_starts: FailedStarts::default(),
            has_run: false,
            is_emulated: false,
            saving: Saving { is_changed: false, retry_at: None, keepers: Vec::new() },
            held: Vec::new(),
            held_until: None,
            actions: Vec::new(),
        };
        (machine, vec![SupervisorAction::Attach])
    }

    /// When to call [`Self::on_input`] with [`SupervisorInput::Time`], as time since the supervisor started.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let of_state = match &self.state {
            State::Guest(guest) => guest.kill_at,
            State::BackOff { until } => Some(*until),
            _ => None,
        };
        [of_state, self.saving.retry_at, self.held_until].into_iter().flatten().min()
    }

    /// Takes an input; what is to be done comes back, in order.
    pub(super) fn on_input(&mut self, now: Now, input: SupervisorInput<C>) -> Vec<SupervisorAction<C>> {
        match input {
            SupervisorInput::Attached(result) => self.on_attached(result),
            SupervisorInput::Launched(result) => self.on_launched(now, result),
            SupervisorInput::Launcher(event) => self.on_launcher_event(now, event),
            SupervisorInput::StopAnswered { accepted } => self.on_stop_answered(accepted),
            SupervisorInput::Probe(purpose, verdict) => self.on_probe(now, purpose, verdict),
            SupervisorInput::Exited(exit) => self.on_exited(now, exit),
            SupervisorInput::Request(request, client) => self.on_request(now, request, client),
            SupervisorInput::StarterGone => self.on_starter_gone(now),
            SupervisorInput::Terminate => self.stop(now, None),
            SupervisorInput::Saved(result) => self.on_saved(now, result),
            SupervisorInput::Served => self.release_held(),
            SupervisorInput::Detached(result) => self.on_detached(result),
            SupervisorInput::Forgotten(result) => self.on_forgotten(result.err()),
            SupervisorInput::Time => self.on_time(now),
        }
        self.take_actions()
    }

    /// The actions so far. A changed status is written before it is reported.
    fn take_actions(&mut self) -> Vec<SupervisorAction<C>> {
        let mut actions = Vec::new();
        if std::mem::take(&mut self.saving.is_changed) {
            actions.push(SupervisorAction::Save(Box::new(self.status.clone())));
        }
        actions.append(&mut self.actions);
        actions
    }

    fn on_attached(&mut self, result: Result<Attached, StartFailure>) {
        let attached = match result {
            Ok(attached) => attached,
            Err(failure) => return self.finish(End::NotStarted(failure)),
        };
        let addresses: Vec<_> = attached.addresses.iter().map(ToString::to_string).collect();
        self.progress(match addresses.as_slice() {
            [] => "network attached".to_owned(),
            addresses => format!("network attached: {}", addresses.join(", ")),
        });
        (self.status.addresses, self.status.host_links) = (attached.addresses, attached.host_links);
        self.saving.is_changed = true;
        attached.warnings.into_iter().for_each(|text| self.tell(Report::Note { text }));
        if !attached.has_name_server {
            let text = "no name server: neither manifest, network nor host names one that the VM could reach";
            self.tell(Report::Note { text: text.to_owned() });
        }
        match self.requests.stop {
            true => self.finish(End::NotStarted(StartFailure::interrupted())),
            false => self.launch(),
        }
    }

    fn launch(&mut self) {
        // A restart that was requested while no guest ran is this one.
        self.requests.restart = false;
        self.change(Phase::Starting, None, false);
        self.actions.push(SupervisorAction::Launch);
        self.state = State::Launching;
    }

    fn on_request(&mut self, now: Now, request: Request, client: C) {
        match request {
            Request::Ping => self.actions.push(SupervisorAction::Answer(client, Report::Alive)),
            Request::Keep => {
                self.saving.keepers.push(client);
                // What is being recorded or removed is not changed any more; the answer comes with the end.
                if !matches!(self.state, State::Forgetting { .. }) {
                    (self.status.kept, self.saving.is_changed) = (true, true);
                }
            }
            Request::Stop { grace_seconds, remove } => {
                if let State::Forgetting { remove: removes, .. } = &self.state
                    && remove
                    && !removes
                {
                    // Too late for this supervisor: the client finds it gone and removes the record itself.
                    return;
                }
                self.requests.remove |= remove;
                self.requests.waiting_for_end.push(client);
                self.stop(now, grace_seconds);
            }
            Request::Restart { .. } if self.status.kind != Kind::VirtualMachine => {
                let message = "a VirtualMachineInstance runs once and is not restarted".to_owned();
                self.actions.push(SupervisorAction::Answer(client, Report::Refused { message }));
            }
            Request::Restart { grace_seconds } => {
                self.requests.waiting_for_run.push(client);
                self.restart(now, grace_seconds);
            }
        }
    }

    fn on_starter_gone(&mut self, now: Now) {
        let may_go = match &self.state {
            State::Guest(guest) => guest.ran,
            State::BackOff { .. } => true,
            _ => false,
        };
        if !may_go {
            self.stop(now, Some(0));
        }
    }

    fn stop(&mut self, now: Now, grace_seconds: Option<u64>) {
        self.requests.stop = true;
        match &self.state {
            State::Guest(_) => self.end_guest(now, grace_seconds),
            State::BackOff { .. } => self.finish_stopped(self.status.reason.clone()),
            _ => {}
        }
    }

    fn restart(&mut self, now: Now, grace_seconds: Option<u64>) {
        self.requests.restart = true;
        match &self.state {
            State::Guest(_) => self.end_guest(now, grace_seconds),
            State::BackOff { .. } => self.launch(),
            _ => {}
        }
    }

    fn on_exited(&mut self, now: Now, exit: LauncherExit) {
        let State::Guest(guest) = &self.state else { return };
        let ran = guest.ran;
        let is_replaced = self.requests.stop || self.requests.restart;
        let exit = if guest.is_unhealthy && !is_replaced { exit.unhealthy() } else { exit };
        (self.status.launcher, self.status.running_since_unix_seconds) = (None, None);
        self.saving.is_changed = true;
        self.after_run(now, exit, ran);
    }

    /// What follows a run: another one, or the end.
    fn after_run(&mut self, now: Now, exit: LauncherExit, ran: bool) {
        tracing::info!(outcome = ?exit.outcome, ran, reason = exit.reason, "the guest has ended");
        self.has_run |= ran;
        if std::mem::take(&mut self.requests.restart) && !self.requests.stop {
            return self.again(now, exit.reason, Duration::ZERO);
        }
        if !self.has_run {
            return self.finish(End::NotStarted(self.not_started(exit)));
        }
        if self.requests.stop {
            return self.finish_stopped(Some(exit.reason));
        }
        let (next, failed_starts) = decide(self.status.strategy, exit.outcome, ran, self.failed_starts, self.spread);
        self.failed_starts = failed_starts;
        match next {
            NextStep::Done(phase) => self.finish(End::Ended { phase, reason: Some(exit.reason) }),
            NextStep::Again { after } => self.again(now, exit.reason, after),
        }
    }

    fn not_started(&self, exit: LauncherExit) -> StartFailure {
        if self.requests.stop {
            return StartFailure::interrupted();
        }
        StartFailure { exit_code: if exit.exit_code == 0 { 7 } else { exit.exit_code }, message: exit.reason }
    }

    fn again(&mut self, now: Now, reason: String, after: Duration) {
        self.status.restarts = self.status.restarts.saturating_add(1);
        self.tell(Report::Again { reason: reason.clone(), after_seconds: after.as_secs() });
        if after.is_zero() {
            return self.launch();
        }
        self.change(Phase::CrashLoopBackOff, Some(reason.clone()), false);
        // A client that waits for a guest that does not come up is not left to wait for all the tries to come.
        let message = format!("{reason}; starting again in {} s", after.as_secs());
        self.refuse_waiting_for_run(&message);
        self.state = State::BackOff { until: now.since_start.saturating_add(after) };
    }

    fn refuse_waiting_for_run(&mut self, message: &str) {
        for client in std::mem::take(&mut self.requests.waiting_for_run) {
            self.answer(client, Report::Refused { message: message.to_owned() });
        }
    }

    fn on_saved(&mut self, now: Now, result: Result<(), String>) {
        let keepers = std::mem::take(&mut self.saving.keepers);
        let report = match result {
            Ok(()) => {
                if self.saving.retry_at.take().is_some() {
                    tracing::info!("the status is written again");
                }
                Report::Done { phase: self.status.phase }
            }
            Err(message) => {
                // Once for a whole stretch of failures, which last as long as the disk is full.
                if self.saving.retry_at.is_none() {
                    tracing::warn!(error = message, "the status cannot be written; it is written again each second");
                }
                self.saving.retry_at = Some(now.since_start.saturating_add(SAVE_RETRY));
                Report::Refused { message }
            }
        };
        for client in keepers {
            self.answer(client, report.clone());
        }
    }

    fn on_time(&mut self, now: Now) {
        let is_due = |at: Option<Duration>| at.is_some_and(|at| at <= now.since_start);
        self.saving.is_changed |= is_due(self.saving.retry_at);
        if is_due(self.held_until) {
            tracing::warn!("Services are not up to date yet");
            self.release_held();
        }
        match &mut self.state {
            State::Guest(guest) if is_due(guest.kill_at) => {
                guest.kill_at = None;
                tracing::warn!("the launcher is killed: it did not end in time");
                self.actions.push(SupervisorAction::KillLauncher);
            }
            State::BackOff { until } if *until <= now.since_start => self.launch(),
            _ => {}
        }
    }

    /// Sets the phase; Services follow it.
    fn change(&mut self, phase: Phase, reason: Option<String>, answers: bool) {
        (self.status.phase, self.status.reason) = (phase, reason);
        self.status.ready = phase == Phase::Running && answers;
        self.saving.is_changed = true;
        self.actions.push(SupervisorAction::Serve);
    }

    fn progress(&mut self, text: String) {
        tracing::info!(text, "progress");
        self.tell(Report::Progress { text });
    }

    /// Reports to the command that started the VM, after what was held back.
    fn tell(&mut self, report: Report) {
        self.release_held();
        self.actions.push(SupervisorAction::Tell(report));
    }

    fn answer(&mut self, client: C, report: Report) {
        self.release_held();
        self.actions.push(SupervisorAction::Answer(client, report));
    }

    /// Reports once Services are up to date, or after [`SERVICES_PATIENCE`].
    fn hold(&mut self, now: Now, report: SupervisorAction<C>) {
        self.held.push(report);
        self.held_until.get_or_insert(now.since_start.saturating_add(SERVICES_PATIENCE));
    }

    fn release_held(&mut self) {
        self.held_until = None;
        self.actions.append(&mut self.held);
    }
}

#[cfg(test)]
mod tests;
