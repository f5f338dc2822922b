//! The root process behind one VM: from an empty namespace to nothing left, whatever happens in between.
//!
//! *Flow:* attach the networks → start the launcher and follow it → apply the run strategy, again and again → detach →
//! put the host back if this was the last VM. One task decides; others only bring it what happens.
//! *Guarantees:* the launcher never outlives this process (the kernel kills it); what is on the host is written down
//! before it is made; a start that fails leaves nothing. *Assumptions:* the caller made the VM's folder, took note of the
//! host, and left the VM's lock open.

mod control;
mod guest;
mod links;
mod pod;
mod probes;
mod requests;

use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::signal::Signal;
use terms::ObjectKey;
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::control::{Control, Said};
use self::guest::{RunEnd, TO_UNPLUG};
pub use self::links::LinkEvent;
pub(crate) use self::pod::{LAUNCHER_USER, release_host};
pub use self::pod::{Pod, RealPod, StartFailure};
use self::probes::{Probes, Purpose};
use self::requests::{Asked, Listener};
use super::layout::VmLayout;
use super::process::Process;
use super::protocol::{Report, Request};
use super::record::{Kind, OnHost, Phase, Status};
use super::store::{Store, StoreError, VmLock};
use super::strategy::{FailedStarts, Final, Next, Outcome, decide};
use super::{chain, files, served};

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
    Ended { end: Final, reason: Option<String> },
}

/// What people want of the VM besides what its strategy says.
#[derive(Debug, Default)]
struct Wishes {
    stop: bool,
    restart: bool,
    remove: bool,
    waiting_for_end: Vec<Listener>,
    waiting_for_run: Vec<Listener>,
}

/// A guest that was asked to end.
#[derive(Debug, Clone, Copy)]
struct Deadline(Option<Instant>);

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
        Ok(Self { store, key, lock, status, pod, clock, spread, answers: false })
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
                    outcome: Outcome::Failed,
                    ran: false,
                    reason: failure.message,
                    exit_code: failure.exit_code,
                },
            };
            tracing::info!(outcome = ?run.outcome, ran = run.ran, reason = run.reason, "the guest has ended");
            if !has_run && !run.ran {
                return Over::NotStarted(self.not_started(run, wishes));
            }
            has_run |= run.ran;
            if std::mem::take(&mut wishes.restart) && !wishes.stop {
                self.again(ears, &run.reason, Duration::ZERO);
                continue;
            }
            if wishes.stop {
                return self.stopped(run);
            }
            let (next, failed_starts) = decide(self.status.strategy, run.outcome, run.ran, history, self.spread);
            history = failed_starts;
            match next {
                Next::Done(end) => return Over::Ended { end, reason: Some(run.reason) },
                Next::Again { after } => {
                    self.again(ears, &run.reason, after);
                    if self.wait(ears, wishes, after).await {
                        return Over::Ended { end: self.end_when_stopped(), reason: Some(run.reason) };
                    }
                }
            }
        }
    }

    /// One launcher from start to end.
    async fn run_guest(&mut self, ears: &mut Ears, wishes: &mut Wishes) -> Result<RunEnd, StartFailure> {
        self.answers = false;
        let vm = self.store.layout().vm(&self.key);
        files::remove_file(&vm.outcome())?;
        self.change(Phase::Starting, None)?;
        let mut child = self.pod.launch()?;
        self.status.launcher = child.id().and_then(|pid| Process::noted(pid.cast_signed()));
        self.save()?;
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

    fn guest_said(&mut self, said: Said, ears: &Ears, wishes: &mut Wishes) -> Result<(), StartFailure> {
        let phase = match said {
            Said::Running => Phase::Running,
            Said::Paused => Phase::Paused,
            Said::Other(event) => {
                tracing::info!("{event}");
                return Ok(());
            }
        };
        if self.status.phase == phase || wishes.stop || wishes.restart {
            return Ok(());
        }
        self.status.running_since_unix_seconds.get_or_insert((self.clock)());
        self.status.kept |= self.status.kept_once_running;
        self.change(phase, None)?;
        ears.starter.tell(&Report::Running);
        let waiting = std::mem::take(&mut wishes.waiting_for_run);
        waiting.iter().for_each(|listener| listener.tell(&Report::Done { phase }));
        Ok(())
    }

    /// What is asked while no guest runs.
    fn hear(&mut self, asked: Option<Asked>, wishes: &mut Wishes) {
        // The grace period is for a guest; there is none.
        self.hear_running(asked, wishes, false);
    }

    /// What is asked while a guest runs. The answer is the grace it gets when it is to end now.
    #[expect(clippy::option_option, reason = "not to end, to end within the manifest's grace, within this one")]
    fn hear_running(&mut self, asked: Option<Asked>, wishes: &mut Wishes, ran: bool) -> Option<Option<u64>> {
        match asked? {
            Asked::StarterGone if ran => None,
            Asked::StarterGone => {
                wishes.stop = true;
                Some(Some(0))
            }
            Asked::Terminate => {
                wishes.stop = true;
                Some(None)
            }
            Asked::Request(Request::Keep, listener) => {
                self.status.kept = true;
                let saved = self.save();
                listener.tell(&match saved {
                    Ok(()) => Report::Done { phase: self.status.phase },
                    Err(failure) => Report::Refused { message: failure.message },
                });
                None
            }
            Asked::Request(Request::Stop { grace_seconds, remove }, listener) => {
                wishes.stop = true;
                wishes.remove |= remove;
                wishes.waiting_for_end.push(listener);
                Some(grace_seconds)
            }
            Asked::Request(Request::Restart { .. }, listener) if self.status.kind != Kind::VirtualMachine => {
                let message = "a VirtualMachineInstance runs once and is not restarted".to_owned();
                listener.tell(&Report::Refused { message });
                None
            }
            Asked::Request(Request::Restart { grace_seconds }, listener) => {
                wishes.restart = true;
                wishes.waiting_for_run.push(listener);
                Some(grace_seconds)
            }
        }
    }

    /// Waits for the next start. Returns whether somebody wants no next start.
    async fn wait(&mut self, ears: &mut Ears, wishes: &mut Wishes, after: Duration) -> bool {
        let mut pause = std::pin::pin!(tokio::time::sleep(after));
        while !wishes.stop && !std::mem::take(&mut wishes.restart) {
            tokio::select! {
                () = &mut pause => return false,
                asked = ears.asked.recv() => { self.hear_running(asked, wishes, true); }
            }
        }
        wishes.stop
    }

    fn again(&mut self, ears: &Ears, reason: &str, after: Duration) {
        self.status.restarts = self.status.restarts.saturating_add(1);
        let phase = if after.is_zero() { Phase::Starting } else { Phase::CrashLoopBackOff };
        if let Err(failure) = self.change(phase, Some(reason.to_owned())) {
            tracing::warn!("{}", failure.message);
        }
        ears.starter.tell(&Report::Again { reason: reason.to_owned(), after_seconds: after.as_secs() });
    }

    fn stopped(&mut self, run: RunEnd) -> Over {
        self.status.strategy = self.status.strategy.after_stop();
        Over::Ended { end: self.end_when_stopped(), reason: Some(run.reason) }
    }

    fn end_when_stopped(&self) -> Final {
        if self.status.kind == Kind::VirtualMachine { Final::Stopped } else { Final::Succeeded }
    }

    fn not_started(&self, run: RunEnd, wishes: &Wishes) -> StartFailure {
        if wishes.stop {
            return StartFailure::interrupted();
        }
        let exit_code = if run.exit_code == 0 { 7 } else { run.exit_code };
        let message = run.reason;
        StartFailure { exit_code, message }
    }

    /// Takes everything back, says so, and forgets the VM unless it is kept.
    async fn take_down(mut self, over: Over, ears: &Ears, wishes: &Wishes) -> u8 {
        let pod = self.pod.clone();
        let detached = tokio::task::spawn_blocking(move || pod.detach()).await;
        let left = match detached {
            Ok(Ok(())) => None,
            Ok(Err(left)) => Some(left),
            Err(panic) => Some(format!("taking the networks back panicked: {panic}")),
        };
        let (phase, reason, exit_code) = match &over {
            Over::NotStarted(failure) => (Phase::Failed, Some(failure.message.clone()), failure.exit_code),
            Over::Ended { end, reason } => {
                (Phase::from(*end), reason.clone(), if *end == Final::Failed { 7 } else { 0 })
            }
        };
        self.status.phase = phase;
        self.status.reason = left.clone().or(reason);
        let forgotten = self.forget(left.is_none(), wishes.remove || !self.status.kept);
        let left = left.or(forgotten.err().map(|failure| failure.message));
        ears.starter.tell(&final_report(over, left.as_deref()));
        for listener in &wishes.waiting_for_end {
            listener.tell(&match &left {
                None => Report::Done { phase },
                Some(left) => Report::Refused { message: left.clone() },
            });
        }
        let message = "it has ended".to_owned();
        wishes.waiting_for_run.iter().for_each(|listener| listener.tell(&Report::Refused { message: message.clone() }));
        exit_code
    }

    /// Says that nothing is on the host any more, if that is so, and removes the folder when it is not to be kept.
    fn forget(&mut self, is_clean: bool, remove: bool) -> Result<(), StartFailure> {
        let host = self.store.lock_host()?;
        if !is_clean {
            return self.save();
        }
        self.status.on_host = OnHost::Absent;
        self.status.ready = false;
        self.status.supervisor = None;
        self.status.addresses.clear();
        self.status.host_links.clear();
        self.save()?;
        if remove {
            self.store.remove(&self.key, &self.lock)?;
        }
        self.pod.release_host(&host)
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

fn final_report(over: Over, left: Option<&str>) -> Report {
    let with = |text: String| match left {
        None => text,
        Some(left) => format!("{text}; and not everything could be taken back: {left}"),
    };
    match over {
        Over::NotStarted(failure) => Report::Failed { exit_code: failure.exit_code, message: with(failure.message) },
        Over::Ended { end, reason } => Report::Ended { end, reason: reason.map(with).or(left.map(str::to_owned)) },
    }
}

#[cfg(test)]
mod tests;
