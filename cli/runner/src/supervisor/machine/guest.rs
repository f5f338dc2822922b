//! Decisions while there is a launcher: its events, probes, and how its guest is ended.

use std::time::Duration;

use protocol::control::{Accelerator, EngineKind};

use super::super::control::LauncherEvent;
use super::super::pod::StartFailure;
use super::super::probes::Purpose;
use super::{LauncherExit, Machine, Now, State, SupervisorAction};
use crate::process::Process;
use crate::protocol::Report;
use crate::record::Phase;

/// Time between the end of the grace period and SIGKILL: what ending the machine and flushing its disks may take.
const TO_UNPLUG: Duration = Duration::from_secs(10);

/// How long a launcher whose guest never ran may take to end.
const TO_GIVE_UP: Duration = Duration::from_secs(2);

/// One run of the guest.
#[derive(Debug, Default)]
pub(super) struct Guest {
    /// Whether its processors have begun to run, or were paused from the start.
    pub(super) ran: bool,
    /// Whether its liveness probe has failed.
    pub(super) is_unhealthy: bool,
    /// When its launcher is killed.
    pub(super) kill_at: Option<Duration>,
    is_probed: bool,
    is_probe_paused: bool,
    /// Whether it answers its readiness probe, if it has one.
    answers: bool,
    /// The disk for which its processors are halted.
    disk_failure: Option<String>,
}

impl<C: Clone> Machine<C> {
    pub(super) fn on_launched(&mut self, now: Now, result: Result<Option<Process>, StartFailure>) {
        match result {
            Ok(process) => {
                self.status.launcher = process;
                self.saving.is_changed = true;
                self.progress("launcher started".to_owned());
                self.state = State::Guest(Guest::default());
                if self.requests.stop || self.requests.restart {
                    self.end_guest(now, Some(0));
                }
            }
            Err(failure) if !self.has_run => self.finish(super::End::NotStarted(failure)),
            Err(failure) => self.after_run(now, LauncherExit::failed(failure), false),
        }
    }

    pub(super) fn on_launcher_event(&mut self, now: Now, event: LauncherEvent) {
        let State::Guest(guest) = &mut self.state else { return };
        guest.ran |= matches!(event, LauncherEvent::Running | LauncherEvent::Paused);
        if matches!(event, LauncherEvent::Running) && !std::mem::replace(&mut guest.is_probed, true) {
            guest.answers = !self.has_readiness_probe;
            let addresses = self.status.addresses.clone();
            self.actions.push(SupervisorAction::StartProbes { addresses });
        }
        let phase = match event {
            LauncherEvent::Running => {
                guest.disk_failure = None;
                Phase::Running
            }
            LauncherEvent::Paused => Phase::Paused,
            LauncherEvent::DiskFailed(reason) => {
                tracing::warn!(reason, "a disk has failed");
                // Usually reported before the processors are halted, which is what changes the phase.
                guest.disk_failure = Some(reason);
                self.status.phase
            }
            LauncherEvent::Engine { kind, reason, kvm } => {
                self.on_engine(kind, reason, kvm);
                return;
            }
            LauncherEvent::Other(event) => {
                tracing::info!(event, "launcher");
                return;
            }
        };
        self.enter(now, phase);
        self.pause_probes();
    }

    /// Records what executes the guest, and says so once where that is emulation.
    fn on_engine(&mut self, kind: EngineKind, reason: String, kvm: String) {
        let is_news = self.status.engine.replace(kind.to_string()) != Some(kind.to_string());
        if is_news {
            tracing::info!(engine = %kind, reason, "engine");
        }
        self.status.engine_reason = Some(reason).filter(|reason| !reason.is_empty());
        let is_emulated = kind == EngineKind::Qemu(Accelerator::Tcg);
        if is_emulated && !std::mem::replace(&mut self.is_emulated, true) {
            self.tell(Report::Note { text: format!("emulated: {kvm}") });
        }
    }

    /// Takes a phase that the launcher reports, unless the guest is about to be ended.
    fn enter(&mut self, now: Now, phase: Phase) {
        let State::Guest(guest) = &self.state else { return };
        let answers = guest.answers;
        let reason = if phase == Phase::Paused { guest.disk_failure.clone() } else { None };
        let is_news = self.status.phase != phase || (phase == Phase::Paused && self.status.reason != reason);
        if !is_news || self.requests.stop || self.requests.restart {
            return;
        }
        let report = match phase {
            Phase::Paused => Report::Paused { reason: reason.clone() },
            _ => {
                self.status.running_since_unix_seconds.get_or_insert(now.unix_seconds);
                Report::Running
            }
        };
        self.status.kept |= self.status.kept_once_running;
        self.change(phase, reason, answers);
        self.hold(now, SupervisorAction::Tell(report));
        for client in std::mem::take(&mut self.requests.waiting_for_run) {
            self.hold(now, SupervisorAction::Answer(client, Report::Done { phase }));
        }
    }

    fn pause_probes(&mut self) {
        let is_paused = self.status.phase == Phase::Paused;
        let State::Guest(guest) = &mut self.state else { return };
        if guest.is_probed && std::mem::replace(&mut guest.is_probe_paused, is_paused) != is_paused {
            self.actions.push(SupervisorAction::PauseProbes(is_paused));
        }
    }

    pub(super) fn on_probe(&mut self, now: Now, purpose: Purpose, verdict: bool) {
        let State::Guest(guest) = &mut self.state else { return };
        match purpose {
            Purpose::Readiness => {
                tracing::info!(ready = verdict, "the readiness probe");
                guest.answers = verdict;
                self.change(self.status.phase, self.status.reason.clone(), verdict);
            }
            Purpose::Liveness if verdict => {}
            Purpose::Liveness => {
                guest.is_unhealthy = true;
                self.end_guest(now, None);
            }
        }
    }

    /// Begins to end the guest: by its power button within the grace period, then by force. A guest that has not run
    /// yet has nothing to lose.
    pub(super) fn end_guest(&mut self, now: Now, grace_seconds: Option<u64>) {
        let grace = Duration::from_secs(grace_seconds.unwrap_or(self.status.grace_period_seconds));
        self.change(Phase::Stopping, None, false);
        let State::Guest(guest) = &mut self.state else { return };
        let (action, patience) = match guest.ran {
            true => (SupervisorAction::StopGuest { grace }, grace.saturating_add(TO_UNPLUG)),
            false => (SupervisorAction::TerminateLauncher, TO_GIVE_UP),
        };
        self.actions.push(action);
        let kill_at = now.since_start.saturating_add(patience);
        guest.kill_at = Some(guest.kill_at.map_or(kill_at, |earlier| earlier.min(kill_at)));
    }

    pub(super) fn on_stop_answered(&mut self, accepted: bool) {
        if matches!(self.state, State::Guest(_)) && !accepted {
            self.actions.push(SupervisorAction::TerminateLauncher);
        }
    }
}
