//! The root process behind one VM: from an empty namespace to nothing left, whatever happens in between.
//!
//! *Flow:* attach the networks → start the launcher and follow it → apply the run strategy, again and again → detach →
//! put the host back if this was the last VM. One task decides; others only bring it what happens.
//! *Guarantees:* the launcher never outlives this process (the kernel kills it); what is on the host is written down
//! before it is made; a start that fails leaves nothing. *Assumptions:* the caller made the VM's folder, took note of the
//! host, and left the VM's lock open.

mod control;
mod guest;
mod guest_run;
mod links;
mod pod;
mod probes;
mod requests;
mod take_down;
mod wishes;

use std::os::unix::net::UnixStream;
use std::time::Duration;

use terms::ObjectKey;
use tokio::sync::mpsc;

use self::guest::RunEnd;
pub use self::links::LinkEvent;
pub use self::pod::{Pod, RealPod, ReleaseError, StartFailure, release_host};
use self::requests::{Asked, Listener};
use self::wishes::Wishes;
use super::process::Process;
use super::protocol::Report;
use super::record::{Kind, Phase, Status};
use super::store::{Store, StoreError, VmLock};
use super::{chain, files};
use api::run_strategy::{FailedStarts, FinalPhase, NextStep, RunOutcome, decide};

/// A supervisor and all it knows.
#[derive(Debug)]
pub struct Supervisor<P> {
    store: Store,
    key: ObjectKey,
    lock: VmLock,
    status: Status,
    pod: P,
    clock: fn() -> u64,
    spread: f32,
    /// Whether the guest of this run would get traffic as far as its readiness probe goes.
    answers: bool,
    /// The disk for which the processors of this run stand.
    disk_failure: Option<String>,
    /// Whether the user was told that the guest is emulated.
    is_emulated: bool,
}

/// What a supervisor is made of.
#[derive(Debug)]
pub struct Parts<P> {
    /// Where VMs are.
    pub store: Store,
    /// Which one.
    pub key: ObjectKey,
    /// Its lock.
    pub lock: VmLock,
    /// What it is connected to, and how its launcher is started.
    pub pod: P,
    /// Seconds since 1970.
    pub clock: fn() -> u64,
    /// In 0..=1; spreads the delays of VMs that fail together.
    pub spread: f32,
}

/// Why it is over, and what is to be said about it.
#[derive(Debug)]
enum Over {
    /// It never ran.
    NotStarted(StartFailure),
    /// It ran.
    Ended { end: FinalPhase, reason: Option<String> },
}

/// What the supervisor listens to.
struct Ears {
    starter: Listener,
    asked: mpsc::Receiver<Asked>,
}

impl<P: Pod> Supervisor<P> {
    /// A supervisor of a VM that was written down.
    ///
    /// # Errors
    /// When its status cannot be read, or its process not be noted.
    pub fn new(parts: Parts<P>) -> Result<Self, StoreError> {
        let Parts { store, key, lock, pod, clock, spread } = parts;
        let own_process = Process::noted(std::process::id().cast_signed());
        let status = Status { supervisor: own_process, ..store.status(&key)? };
        store.put_status(&key, &status)?;
        let own = format!("{}\n", std::process::id());
        files::replace(&store.layout().vm(&key).pid(), own.as_bytes(), 0o644)?;
        Ok(Self {
            store,
            key,
            lock,
            status,
            pod,
            clock,
            spread,
            answers: false,
            disk_failure: None,
            is_emulated: false,
        })
    }

    /// Runs the VM to its end. The starter, if any, is told what happens.
    ///
    /// # Errors
    /// When nobody could talk to it; nothing was started then.
    pub async fn run(mut self, starter: Option<UnixStream>) -> std::io::Result<u8> {
        let (starter, asked) = requests::receive(&self.store.layout().vm(&self.key).supervisor_socket(), starter)?;
        let (mut ears, mut wishes) = (Ears { starter, asked }, Wishes::default());
        let over = match self.bring_up(&mut ears, &mut wishes).await {
            Err(failure) => Over::NotStarted(failure),
            Ok(()) => self.live(&mut ears, &mut wishes).await,
        };
        Ok(self.take_down(over, &ears, &wishes).await)
    }

    /// Attaches the pod. Who cancels meanwhile is heard when the plugins are done: half-way they are not interrupted.
    async fn bring_up(&mut self, ears: &mut Ears, wishes: &mut Wishes) -> Result<(), StartFailure> {
        let pod = self.pod.clone();
        let mut attaching = tokio::task::spawn_blocking(move || pod.attach());
        let wired = loop {
            tokio::select! {
                attached = &mut attaching => break attached,
                asked = ears.asked.recv() => self.hear(asked, wishes),
            }
        };
        let wired =
            wired.map_err(|panic| StartFailure::failed(format!("attaching the networks panicked: {panic}")))??;
        self.status.addresses.clone_from(&wired.addresses);
        self.status.host_links = wired.host_links;
        self.save()?;
        let addresses: Vec<_> = wired.addresses.iter().map(ToString::to_string).collect();
        ears.progress(match addresses.as_slice() {
            [] => "network attached".to_owned(),
            addresses => format!("network attached: {}", addresses.join(", ")),
        });
        if wired.resolv.servers.is_empty() {
            ears.note(
                "no name server: neither manifest, network nor host names one that the VM could reach".to_owned(),
            );
        }
        if wishes.stop { Err(StartFailure::interrupted()) } else { Ok(()) }
    }

    /// Run after run, until the strategy or somebody says that it is enough.
    async fn live(&mut self, ears: &mut Ears, wishes: &mut Wishes) -> Over {
        let (mut history, mut has_run) = (FailedStarts::default(), false);
        loop {
            let run = match self.run_guest(ears, wishes).await {
                Ok(run) => run,
                Err(failure) if !has_run => return Over::NotStarted(failure),
                Err(failure) => RunEnd {
                    outcome: RunOutcome::Failed,
                    ran: false,
                    reason: failure.message,
                    exit_code: failure.exit_code,
                },
            };
            tracing::info!(outcome = ?run.outcome, ran = run.ran, reason = run.reason, "the guest has ended");
            has_run |= run.ran;
            if std::mem::take(&mut wishes.restart) && !wishes.stop {
                self.again(ears, wishes, &run.reason, Duration::ZERO);
                continue;
            }
            if !has_run {
                return Over::NotStarted(self.not_started(run, wishes));
            }
            if wishes.stop {
                return self.stopped(run);
            }
            let (next, failed_starts) = decide(self.status.strategy, run.outcome, run.ran, history, self.spread);
            history = failed_starts;
            match next {
                NextStep::Done(end) => return Over::Ended { end, reason: Some(run.reason) },
                NextStep::Again { after } => {
                    self.again(ears, wishes, &run.reason, after);
                    if self.wait(ears, wishes, after).await {
                        return self.stopped(run);
                    }
                }
            }
        }
    }

    fn again(&mut self, ears: &Ears, wishes: &mut Wishes, reason: &str, after: Duration) {
        self.status.restarts = self.status.restarts.saturating_add(1);
        let phase = if after.is_zero() { Phase::Starting } else { Phase::CrashLoopBackOff };
        if let Err(failure) = self.change(phase, Some(reason.to_owned())) {
            tracing::warn!("{}", failure.message);
        }
        ears.starter.tell(&Report::Again { reason: reason.to_owned(), after_seconds: after.as_secs() });
        // Who waits for a guest that does not come up is not left to wait for all the tries to come.
        if !after.is_zero() {
            let message = format!("{reason}; starting again in {} s", after.as_secs());
            let waiting = std::mem::take(&mut wishes.waiting_for_run);
            waiting.iter().for_each(|listener| listener.tell(&Report::Refused { message: message.clone() }));
        }
    }

    fn stopped(&mut self, run: RunEnd) -> Over {
        self.status.strategy = self.status.strategy.after_stop();
        Over::Ended { end: self.end_when_stopped(), reason: Some(run.reason) }
    }

    fn end_when_stopped(&self) -> FinalPhase {
        if self.status.kind == Kind::VirtualMachine { FinalPhase::Stopped } else { FinalPhase::Succeeded }
    }

    fn not_started(&self, run: RunEnd, wishes: &Wishes) -> StartFailure {
        if wishes.stop {
            return StartFailure::interrupted();
        }
        let exit_code = if run.exit_code == 0 { 7 } else { run.exit_code };
        let message = run.reason;
        StartFailure { exit_code, message }
    }

    fn change(&mut self, phase: Phase, reason: Option<String>) -> Result<(), StartFailure> {
        self.status.phase = phase;
        self.status.reason = reason;
        self.status.ready = phase == Phase::Running && self.answers;
        self.save()?;
        self.pod.serve();
        Ok(())
    }

    fn save(&self) -> Result<(), StartFailure> {
        self.store.put_status(&self.key, &self.status).map_err(|error| StartFailure::failed(chain(&error)))
    }
}

impl Ears {
    fn progress(&self, text: impl Into<String>) {
        let text = text.into();
        tracing::info!("{text}");
        self.starter.tell(&Report::Progress { text });
    }

    fn note(&self, text: String) {
        tracing::info!("{text}");
        self.starter.tell(&Report::Note { text });
    }
}

#[cfg(test)]
mod tests;
