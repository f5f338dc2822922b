//! The supervisor's decisions, without a clock, a process or a file.

use api::run_strategy::{FinalPhase, RunOutcome, RunStrategy};

use super::super::control::LauncherEvent;
use super::super::probes::Purpose;
use super::*;
use crate::fixtures::status;
use crate::record::OnHost;

type Input = SupervisorInput<&'static str>;
type Action = SupervisorAction<&'static str>;

/// A machine and the time since its start.
struct Bench {
    machine: Machine<&'static str>,
    now: Now,
}

fn bench(strategy: RunStrategy) -> Bench {
    let status = Status { strategy, grace_period_seconds: 30, ..status("web") };
    let (machine, actions) = Machine::start(status, 0.0, false);
    assert_eq!(actions, [Action::Attach]);
    Bench { machine, now: Now { since_start: Duration::ZERO, unix_seconds: 1_700_000_000 } }
}

fn running(strategy: RunStrategy) -> Bench {
    let mut bench = bench(strategy);
    bench.comes_up();
    bench
}

impl Bench {
    /// Actions that follow an input, without the two that follow most.
    fn on(&mut self, input: Input) -> Vec<Action> {
        let mut actions = self.all(input);
        actions.retain(|action| !matches!(action, Action::Save(_) | Action::Serve));
        actions
    }

    fn all(&mut self, input: Input) -> Vec<Action> {
        self.machine.on_input(self.now, input)
    }

    fn comes_up(&mut self) {
        self.on(Input::Attached(Ok(Attached { has_name_server: true, ..Attached::default() })));
        self.runs();
    }

    /// A launcher starts and its guest runs.
    fn runs(&mut self) -> Vec<Action> {
        self.on(Input::Launched(Ok(None)));
        self.on(Input::Launcher(LauncherEvent::Running));
        self.on(Input::Served)
    }

    fn exits(&mut self, outcome: RunOutcome, reason: &str) -> Vec<Action> {
        let exit_code = if outcome == RunOutcome::Failed { 7 } else { 0 };
        self.on(Input::Exited(LauncherExit { outcome, reason: reason.to_owned(), exit_code }))
    }

    fn ends(&mut self) -> Vec<Action> {
        self.on(Input::Detached(Ok(())));
        self.on(Input::Forgotten(Ok(())))
    }

    /// Time passes until the next deadline.
    fn waits(&mut self) -> Vec<Action> {
        self.now.since_start = self.machine.next_deadline().expect("a deadline");
        self.on(Input::Time)
    }

    fn asks(&mut self, request: Request, client: &'static str) -> Vec<Action> {
        self.on(Input::Request(request, client))
    }

    fn phase(&self) -> Phase {
        self.machine.status.phase
    }
}

const STOP: Request = Request::Stop { grace_seconds: None, remove: false };
const RESTART: Request = Request::Restart { grace_seconds: None };

fn told(report: Report) -> Action {
    Action::Tell(report)
}

fn refused(message: &str) -> Report {
    Report::Refused { message: message.to_owned() }
}

#[test]
fn a_guest_that_powers_off_is_started_again_until_a_user_stops_it() {
    let mut vm = running(RunStrategy::Always);
    let again = Report::Again { reason: "off".to_owned(), after_seconds: 0 };
    assert_eq!(vm.exits(RunOutcome::PoweredOff, "off"), [told(again), Action::Launch]);
    assert_eq!(vm.runs(), [told(Report::Running)]);
    let stop = Action::StopGuest { grace: Duration::from_secs(30) };
    assert_eq!(vm.asks(STOP, "client"), [stop]);
    assert_eq!(vm.exits(RunOutcome::Stopped, "stopped"), [Action::Detach]);
    let ended = Report::Ended { end: FinalPhase::Stopped, reason: Some("stopped".to_owned()) };
    let done = Action::Answer("client", Report::Done { phase: Phase::Stopped });
    assert_eq!(vm.ends(), [told(ended), done, Action::Exit(0)]);
    let status = &vm.machine.status;
    assert_eq!((status.strategy, status.on_host, status.restarts), (RunStrategy::Halted, OnHost::Absent, 1));
}

// spec: RUN-4
#[test]
fn a_status_that_cannot_be_written_ends_no_guest_and_is_written_again() {
    let mut vm = running(RunStrategy::Always);
    let full = || Input::Saved(Err("cannot write status.json: no space left".to_owned()));
    assert_eq!(vm.on(full()), []);
    for _ in 0..3 {
        let before = vm.now.since_start;
        vm.now.since_start = vm.machine.next_deadline().unwrap();
        assert_eq!(vm.now.since_start - before, SAVE_RETRY);
        let saved = vm.all(Input::Time);
        assert!(matches!(saved.as_slice(), [Action::Save(status)] if status.phase == Phase::Running), "{saved:?}");
        assert_eq!(vm.on(full()), []);
    }
    assert_eq!(vm.phase(), Phase::Running);
    assert_eq!(vm.on(Input::Saved(Ok(()))), []);
    assert_eq!(vm.machine.next_deadline(), None);
}

#[test]
fn a_keep_is_answered_once_it_is_written_and_refused_when_it_cannot_be() {
    let mut vm = running(RunStrategy::Once);
    vm.machine.status.kept = false;
    let saved = vm.all(Input::Request(Request::Keep, "client"));
    assert!(matches!(saved.as_slice(), [Action::Save(status)] if status.kept), "{saved:?}");
    let answer = Action::Answer("client", Report::Done { phase: Phase::Running });
    assert_eq!(vm.on(Input::Saved(Ok(()))), [answer]);
    vm.asks(Request::Keep, "other");
    assert_eq!(vm.on(Input::Saved(Err("full".to_owned()))), [Action::Answer("other", refused("full"))]);
}

#[test]
fn a_report_that_the_guest_runs_waits_for_services_but_not_for_ever() {
    let mut vm = bench(RunStrategy::Always);
    vm.on(Input::Attached(Ok(Attached { has_name_server: true, ..Attached::default() })));
    vm.on(Input::Launched(Ok(None)));
    let actions = vm.on(Input::Launcher(LauncherEvent::Running));
    assert_eq!(actions, [Action::StartProbes { addresses: Vec::new() }]);
    assert_eq!(vm.machine.next_deadline(), Some(SERVICES_PATIENCE));
    assert_eq!(vm.waits(), [told(Report::Running)]);
    assert_eq!(vm.on(Input::Served), []);
    // What follows is never reported before what was held back.
    vm.on(Input::Launcher(LauncherEvent::Paused));
    let actions = vm.exits(RunOutcome::PoweredOff, "off");
    assert_eq!(actions.first(), Some(&told(Report::Paused { reason: None })));
}

// spec: RUN-5
#[test]
fn a_launcher_that_does_not_end_in_time_is_killed_once() {
    let mut vm = running(RunStrategy::Always);
    vm.asks(Request::Stop { grace_seconds: Some(5), remove: false }, "client");
    assert_eq!(vm.on(Input::StopAnswered { accepted: true }), []);
    assert_eq!(vm.waits(), [Action::KillLauncher]);
    assert_eq!(vm.now.since_start, Duration::from_secs(15));
    assert_eq!(vm.machine.next_deadline(), None);
    // A second request with more time does not move the deadline, one without time shortens it.
    let mut vm = running(RunStrategy::Always);
    vm.asks(Request::Stop { grace_seconds: Some(5), remove: false }, "first");
    vm.asks(Request::Stop { grace_seconds: Some(500), remove: false }, "second");
    assert_eq!(vm.machine.next_deadline(), Some(Duration::from_secs(15)));
    vm.asks(Request::Stop { grace_seconds: Some(0), remove: false }, "third");
    assert_eq!(vm.machine.next_deadline(), Some(Duration::from_secs(10)));
}

#[test]
fn a_launcher_that_does_not_accept_a_stop_is_sent_sigterm() {
    let mut vm = running(RunStrategy::Always);
    vm.on(Input::Terminate);
    assert_eq!(vm.on(Input::StopAnswered { accepted: false }), [Action::TerminateLauncher]);
}

#[test]
fn a_starter_that_goes_before_the_guest_runs_ends_it_and_later_does_not() {
    let mut vm = bench(RunStrategy::Always);
    vm.machine.status.kept = false;
    vm.on(Input::Attached(Ok(Attached::default())));
    vm.on(Input::Launched(Ok(None)));
    assert_eq!(vm.on(Input::StarterGone), [Action::TerminateLauncher]);
    assert_eq!(vm.machine.next_deadline(), Some(Duration::from_secs(2)));
    vm.exits(RunOutcome::Failed, "killed");
    let forget = vm.on(Input::Detached(Ok(())));
    assert!(matches!(forget.as_slice(), [Action::Forget { remove: true, .. }]), "{forget:?}");
    let failed = Report::Failed { exit_code: 130, message: StartFailure::interrupted().message };
    assert_eq!(vm.on(Input::Forgotten(Ok(()))), [told(failed), Action::Exit(130)]);

    let mut vm = running(RunStrategy::Always);
    assert_eq!(vm.on(Input::StarterGone), []);
    assert_eq!(vm.phase(), Phase::Running);
}

#[test]
fn a_stop_while_networks_are_attached_waits_for_the_plugins() {
    let mut vm = bench(RunStrategy::Always);
    assert_eq!(vm.asks(STOP, "client"), []);
    let actions = vm.on(Input::Attached(Ok(Attached { has_name_server: true, ..Attached::default() })));
    let attached = told(Report::Progress { text: "network attached".to_owned() });
    assert_eq!(actions, [attached, Action::Detach]);
}

#[test]
fn a_failed_start_keeps_its_first_reason_and_what_was_not_removed() {
    let mut vm = bench(RunStrategy::Always);
    let failure = StartFailure { exit_code: 3, message: "no disk".to_owned() };
    assert_eq!(vm.on(Input::Attached(Err(failure))), [Action::Detach]);
    let forget = vm.on(Input::Detached(Err("eth0 stays".to_owned())));
    // The record stays, and says that something is on the host.
    let [Action::Forget { status, remove: false }] = forget.as_slice() else { panic!("{forget:?}") };
    assert_eq!((status.reason.as_deref(), status.left.as_deref()), (Some("no disk"), Some("eth0 stays")));
    assert_eq!(status.on_host, OnHost::Present);
    let message = "no disk; and not everything could be removed: eth0 stays; disk full".to_owned();
    let failed = Report::Failed { exit_code: 3, message };
    assert_eq!(vm.on(Input::Forgotten(Err("disk full".to_owned()))), [told(failed), Action::Exit(3)]);
}

#[test]
fn starts_that_fail_are_tried_again_after_longer_and_longer_times() {
    let mut vm = running(RunStrategy::Always);
    vm.exits(RunOutcome::PoweredOff, "off");
    let mut delays = Vec::new();
    for _ in 0..3 {
        vm.on(Input::Launched(Err(StartFailure::failed("no tap".to_owned()))));
        assert_eq!(vm.phase(), Phase::CrashLoopBackOff);
        let before = vm.now.since_start;
        assert_eq!(vm.waits(), [Action::Launch]);
        delays.push((vm.now.since_start - before).as_secs());
    }
    assert_eq!(delays, [10, 40, 90]);
}

#[test]
fn a_restart_is_answered_when_the_guest_runs_or_with_the_reason() {
    let mut vm = running(RunStrategy::Always);
    vm.asks(RESTART, "client");
    vm.exits(RunOutcome::Stopped, "stopped");
    vm.on(Input::Launched(Ok(None)));
    vm.on(Input::Launcher(LauncherEvent::Running));
    let answer = Action::Answer("client", Report::Done { phase: Phase::Running });
    assert_eq!(vm.on(Input::Served), [told(Report::Running), answer]);

    vm.asks(RESTART, "other");
    vm.exits(RunOutcome::Stopped, "stopped");
    let actions = vm.on(Input::Launched(Err(StartFailure::failed("no disk".to_owned()))));
    let again = Report::Again { reason: "no disk".to_owned(), after_seconds: 10 };
    let answer = Action::Answer("other", refused("no disk; starting again in 10 s"));
    assert_eq!(actions, [told(again), answer]);
    // A restart ends the wait, a stop ends the VM.
    assert_eq!(vm.asks(RESTART, "third"), [Action::Launch]);
    vm.on(Input::Launched(Err(StartFailure::failed("no disk".to_owned()))));
    assert_eq!(vm.asks(STOP, "fourth"), [Action::Detach]);
}

#[test]
fn an_instance_is_not_restarted() {
    let mut vm = running(RunStrategy::Once);
    vm.machine.status.kind = Kind::VirtualMachineInstance;
    let answer = refused("a VirtualMachineInstance runs once and is not restarted");
    assert_eq!(vm.asks(RESTART, "client"), [Action::Answer("client", answer)]);
    vm.exits(RunOutcome::PoweredOff, "off");
    let ended = Report::Ended { end: FinalPhase::Succeeded, reason: Some("off".to_owned()) };
    assert_eq!(vm.ends(), [told(ended), Action::Exit(0)]);
}

// spec: RUN-5
#[test]
fn a_ping_is_answered_at_any_time() {
    let mut vm = bench(RunStrategy::Always);
    let alive = [Action::Answer("client", Report::Alive)];
    assert_eq!(vm.all(Input::Request(Request::Ping, "client")), alive);
    vm.comes_up();
    assert_eq!(vm.all(Input::Request(Request::Ping, "client")), alive);
    vm.asks(STOP, "other");
    vm.exits(RunOutcome::Stopped, "stopped");
    assert_eq!(vm.all(Input::Request(Request::Ping, "client")), alive);
}

#[test]
fn a_liveness_probe_that_fails_is_a_failure_unless_the_end_was_requested() {
    let mut vm = running(RunStrategy::Manual);
    let stop = || [Action::StopGuest { grace: Duration::from_secs(30) }];
    assert_eq!(vm.on(Input::Probe(Purpose::Liveness, false)), stop());
    vm.exits(RunOutcome::Stopped, "stopped");
    let reason = Some("its liveness probe failed".to_owned());
    let ended = Report::Ended { end: FinalPhase::Failed, reason };
    assert_eq!(vm.ends(), [told(ended), Action::Exit(7)]);

    let mut vm = running(RunStrategy::Manual);
    vm.asks(STOP, "client");
    assert_eq!(vm.on(Input::Probe(Purpose::Liveness, false)), stop());
    vm.exits(RunOutcome::Stopped, "stopped");
    let ended = Report::Ended { end: FinalPhase::Stopped, reason: Some("stopped".to_owned()) };
    assert_eq!(vm.ends().first(), Some(&told(ended)));
}

#[test]
fn a_guest_is_ready_when_it_runs_and_answers_its_readiness_probe() {
    let status = Status { strategy: RunStrategy::Always, ..status("web") };
    let (machine, _) = Machine::start(status, 0.0, true);
    let mut vm = Bench { machine, now: Now::default() };
    vm.comes_up();
    assert!(!vm.machine.status.ready);
    let actions = vm.all(Input::Probe(Purpose::Readiness, true));
    assert!(matches!(actions.as_slice(), [Action::Save(status), Action::Serve] if status.ready), "{actions:?}");
    assert_eq!(vm.on(Input::Launcher(LauncherEvent::Paused)), [Action::PauseProbes(true)]);
    assert!(!vm.machine.status.ready);
    assert!(vm.on(Input::Launcher(LauncherEvent::Running)).contains(&Action::PauseProbes(false)));
    assert!(vm.machine.status.ready, "it answered before it was paused");
}

#[test]
fn a_disk_that_failed_is_the_reason_why_a_guest_is_paused() {
    let mut vm = running(RunStrategy::Always);
    vm.on(Input::Launcher(LauncherEvent::DiskFailed("disk root: full".to_owned())));
    vm.on(Input::Launcher(LauncherEvent::Paused));
    let reason = Some("disk root: full".to_owned());
    assert_eq!(vm.machine.status.reason, reason);
    assert_eq!(vm.on(Input::Served), [told(Report::Paused { reason })]);
    vm.on(Input::Launcher(LauncherEvent::Running));
    assert_eq!((vm.phase(), vm.machine.status.reason.clone()), (Phase::Running, None));
}

#[test]
fn a_removal_requested_while_networks_are_detached_is_carried_out() {
    let mut vm = running(RunStrategy::Always);
    vm.asks(STOP, "first");
    vm.exits(RunOutcome::Stopped, "stopped");
    vm.asks(Request::Stop { grace_seconds: None, remove: true }, "second");
    let forget = vm.on(Input::Detached(Ok(())));
    assert!(matches!(forget.as_slice(), [Action::Forget { remove: true, .. }]), "{forget:?}");
    // One that comes later than that, for a record that stays, is left to the client.
    let mut vm = running(RunStrategy::Always);
    vm.asks(STOP, "first");
    vm.exits(RunOutcome::Stopped, "stopped");
    vm.on(Input::Detached(Ok(())));
    assert_eq!(vm.asks(Request::Stop { grace_seconds: None, remove: true }, "second"), []);
    let answered: Vec<_> =
        vm.on(Input::Forgotten(Ok(()))).into_iter().filter(|action| matches!(action, Action::Answer(..))).collect();
    assert_eq!(answered, [Action::Answer("first", Report::Done { phase: Phase::Stopped })]);
}
