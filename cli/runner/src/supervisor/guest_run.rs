//! One launcher from start to end: what it says, what is asked meanwhile, and how its guest is ended.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::control::{Control, Said};
use super::guest::{self, RunEnd, TO_UNPLUG};
use super::links::LinkEvent;
use super::pod::{Pod, StartFailure};
use super::probes::{Probes, Purpose};
use super::wishes::Wishes;
use super::{Ears, Supervisor};
use crate::layout::VmLayout;
use crate::process::Process;
use crate::protocol::Report;
use crate::record::Phase;
use crate::{files, process, served};

/// A guest that was asked to end.
#[derive(Debug, Clone, Copy)]
struct Deadline(Option<Instant>);

impl<P: Pod> Supervisor<P> {
    /// One launcher from start to end.
    pub(super) async fn run_guest(&mut self, ears: &mut Ears, wishes: &mut Wishes) -> Result<RunEnd, StartFailure> {
        (self.answers, self.disk_failure) = (false, None);
        // This run is the one that was asked for while there was none.
        wishes.restart = false;
        let vm = self.store.layout().vm(&self.key);
        files::remove_file(&vm.outcome())?;
        self.change(Phase::Starting, None)?;
        let mut child = self.pod.launch()?;
        self.status.launcher = child.id().and_then(|pid| Process::noted(pid.cast_signed()));
        self.save()?;
        let session = self.status.launcher.map(|launcher| launcher.pid);
        ears.progress("launcher started");
        let (mut control, mut links) = (Control::of(&vm.control_socket()), self.pod.follow_links());
        let (mut ran, mut deadline) = (false, Deadline(None));
        let (mut probes, mut unhealthy) = (None, false);
        if wishes.stop {
            deadline = self.end_guest(&child, &control, Some(0), ran).await;
        }
        let status = loop {
            tokio::select! {
                exited = child.wait() => break exited,
                said = control.next() => {
                    ran |= matches!(said, Said::Running | Said::Paused);
                    if matches!(said, Said::Running) && probes.is_none() {
                        probes = self.begin_probes(&vm);
                    }
                    self.guest_said(said, ears, wishes)?;
                    if let Some(probes) = &probes {
                        probes.rest(self.status.phase == Phase::Paused);
                    }
                }
                asked = ears.asked.recv() => {
                    if let Some(grace) = self.hear_running(asked, wishes, ran) {
                        deadline = self.end_guest(&child, &control, grace, ran).await.earlier(deadline);
                    }
                }
                (purpose, verdict) = next_verdict(&mut probes) => match purpose {
                    Purpose::Readiness => self.set_ready(verdict)?,
                    Purpose::Liveness => {
                        unhealthy = true;
                        deadline = self.end_guest(&child, &control, None, ran).await.earlier(deadline);
                    }
                },
                event = next_link(&mut links) => event.log(),
                () = deadline.passes() => {
                    tracing::warn!("the launcher is killed: it did not end in time");
                    deadline = Deadline(None);
                    // It may have ended in this very moment; then there is nothing to kill.
                    drop(child.start_kill());
                }
            }
        };
        if let Some(session) = session {
            session_ends(session).await;
        }
        self.status.launcher = None;
        self.status.running_since_unix_seconds = None;
        let status = status.map_err(|error| StartFailure::failed(format!("waiting for the launcher: {error}")))?;
        let end = guest::run_end(status, ran, &vm.outcome());
        Ok(if unhealthy && !wishes.stop && !wishes.restart { end.unhealthy() } else { end })
    }

    /// Begins to ask a guest that has begun to run; one without a readiness probe is ready from then on.
    fn begin_probes(&mut self, vm: &VmLayout) -> Option<Probes> {
        let object: Result<serde_json::Value, _> = files::read_json(&vm.object());
        let instance = object.ok().as_ref().and_then(served::instance_of);
        let probes = instance.map(|instance| Probes::begin(&instance.spec, &self.status.addresses));
        self.answers = probes.as_ref().is_none_or(Probes::is_ready_unasked);
        probes
    }

    fn set_ready(&mut self, answers: bool) -> Result<(), StartFailure> {
        tracing::info!(ready = answers, "the readiness probe");
        self.answers = answers;
        self.change(self.status.phase, self.status.reason.clone())
    }

    /// Begins to end the guest. One that has not run yet has nothing to lose.
    async fn end_guest(&mut self, child: &Child, control: &Control, grace_seconds: Option<u64>, ran: bool) -> Deadline {
        let grace = Duration::from_secs(grace_seconds.unwrap_or(self.status.grace_period_seconds));
        if let Err(failure) = self.change(Phase::Stopping, None) {
            tracing::warn!("{}", failure.message);
        }
        if ran && control.stop(grace).await {
            return Deadline::in_time(grace.saturating_add(TO_UNPLUG));
        }
        let launcher = child.id().and_then(|pid| Process::noted(pid.cast_signed()));
        if let Some(Err(error)) = launcher.map(|launcher| launcher.signal(Signal::SIGTERM)) {
            tracing::warn!(%error, "the launcher cannot be asked to end");
        }
        Deadline::in_time(if ran { grace.saturating_add(TO_UNPLUG) } else { Duration::from_secs(2) })
    }

    /// Where the guest is by what the launcher says; most of that does not change it.
    fn phase_after(&mut self, said: Said, ears: &Ears) -> Phase {
        match said {
            Said::Running => {
                self.disk_failure = None;
                Phase::Running
            }
            Said::Paused => Phase::Paused,
            Said::DiskFailed(why) => {
                tracing::warn!("{why}");
                self.disk_failure = Some(why);
                // Usually told of before the processors stand, which is what changes the phase.
                self.status.phase
            }
            Said::Emulated(why) => {
                if !std::mem::replace(&mut self.is_emulated, true) {
                    ears.note(format!("emulated: {why}"));
                }
                self.status.phase
            }
            Said::Other(event) => {
                tracing::info!("{event}");
                self.status.phase
            }
        }
    }

    fn guest_said(&mut self, said: Said, ears: &Ears, wishes: &mut Wishes) -> Result<(), StartFailure> {
        let phase = self.phase_after(said, ears);
        let reason = if phase == Phase::Paused { self.disk_failure.clone() } else { None };
        let is_news = self.status.phase != phase || (phase == Phase::Paused && self.status.reason != reason);
        if !is_news || wishes.stop || wishes.restart {
            return Ok(());
        }
        let report = match phase {
            Phase::Paused => Report::Paused { reason: reason.clone() },
            _ => {
                self.status.running_since_unix_seconds.get_or_insert((self.clock)());
                Report::Running
            }
        };
        self.status.kept |= self.status.kept_once_running;
        self.change(phase, reason)?;
        ears.starter.tell(&report);
        let waiting = std::mem::take(&mut wishes.waiting_for_run);
        waiting.iter().for_each(|listener| listener.tell(&Report::Done { phase }));
        Ok(())
    }
}

impl Deadline {
    fn in_time(time: Duration) -> Self {
        Self(Instant::now().checked_add(time))
    }

    fn earlier(self, other: Self) -> Self {
        Self(self.0.into_iter().chain(other.0).min())
    }

    async fn passes(self) {
        match self.0 {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

/// A launcher that was killed is gone before its engine has let go of taps and disks, which the next run needs. One that
/// does not is met by the next run by name.
async fn session_ends(session: i32) {
    const STEP: Duration = Duration::from_millis(5);
    const STEPS: usize = 2000;
    for _ in 0..STEPS {
        if !process::is_session_left(session) {
            return;
        }
        tokio::time::sleep(STEP).await;
    }
    tracing::warn!("the engine of a launcher that is gone does not end");
}

async fn next_verdict(probes: &mut Option<Probes>) -> (Purpose, bool) {
    match probes {
        Some(probes) => probes.next().await,
        None => std::future::pending().await,
    }
}

async fn next_link(links: &mut Option<mpsc::Receiver<LinkEvent>>) -> LinkEvent {
    if let Some(receiver) = links {
        if let Some(event) = receiver.recv().await {
            return event;
        }
        tracing::warn!("links are not followed any more");
        *links = None;
    }
    std::future::pending().await
}
