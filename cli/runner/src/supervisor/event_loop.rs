//! The supervisor's loop: inputs of clients, signals, the launcher and the clock go to the [`Machine`], and what that
//! decides is executed.
//!
//! *Guarantees:* only the status is written from here, to tmpfs; everything that waits for a lock, the kernel, a plugin or
//! the launcher runs off the loop, and its result comes back as an input.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use api::kubevirt::VirtualMachineInstance;
use terms::ObjectKey;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::Parts;
use super::launcher::LauncherRun;
use super::machine::{Attached, Machine, Now, SupervisorAction, SupervisorInput};
use super::pod::{Pod, StartFailure};
use super::probes::Probes;
use super::requests::{self, Client};
use crate::process::Process;
use crate::record::{OnHost, Status};
use crate::store::{Store, VmLock};
use crate::{chain, files, service_store};

/// The loop and what it executes with.
#[derive(Debug)]
pub(super) struct EventLoop<P> {
    vm: Vm<P>,
    clock: fn() -> u64,
    started: Instant,
    instance: Option<VirtualMachineInstance>,
    machine: Machine<Client>,
    starter: Client,
    inputs: mpsc::Sender<SupervisorInput<Client>>,
    received: mpsc::Receiver<SupervisorInput<Client>>,
    launcher: Option<LauncherRun>,
    services: ServicesUpdate,
}

/// The VM as seen by work off the loop.
#[derive(Debug, Clone)]
struct Vm<P> {
    store: Store,
    key: ObjectKey,
    lock: Arc<VmLock>,
    pod: P,
}

/// One update of Services at a time, and one more when something changed meanwhile.
#[derive(Debug, Default)]
struct ServicesUpdate {
    running: Option<JoinHandle<()>>,
    is_outdated: bool,
}

type Actions = Vec<SupervisorAction<Client>>;

impl<P: Pod> EventLoop<P> {
    /// Receives requests and signals from now on. The actions are the first to be executed.
    pub(super) fn new(
        parts: Parts<P>,
        status: Status,
        starter: Option<UnixStream>,
    ) -> std::io::Result<(Self, Actions)> {
        let Parts { store, key, lock, pod, clock, spread } = parts;
        let layout = store.layout().vm(&key);
        let (inputs, received) = mpsc::channel(16);
        let starter = requests::receive(&layout.supervisor_socket(), starter, &inputs)?;
        // A VM whose object cannot be read is run nevertheless, without probes.
        let object: Option<serde_json::Value> = files::read_json(&layout.object())
            .inspect_err(|error| tracing::warn!(error = %chain(error), "the VM's probes cannot be read"))
            .ok();
        let instance = object.as_ref().and_then(service_store::instance_of);
        let has_readiness_probe = instance.as_ref().is_some_and(|instance| instance.spec.readiness_probe.is_some());
        let (machine, actions) = Machine::start(status, spread, has_readiness_probe);
        let event_loop = Self {
            vm: Vm { store, key, lock: Arc::new(lock), pod },
            clock,
            started: Instant::now(),
            instance,
            machine,
            starter,
            inputs,
            received,
            launcher: None,
            services: ServicesUpdate::default(),
        };
        Ok((event_loop, actions))
    }

    /// Runs until the machine says that it is over; returns the exit code.
    pub(super) async fn run(mut self, mut actions: Actions) -> u8 {
        let mut results = VecDeque::new();
        loop {
            for action in actions {
                if let SupervisorAction::Exit(code) = action {
                    return code;
                }
                results.extend(self.execute(action));
            }
            let input = match results.pop_front() {
                Some(result) => result,
                None => self.next().await,
            };
            actions = self.machine.on_input(self.now(), input);
        }
    }

    async fn next(&mut self) -> SupervisorInput<Client> {
        let deadline = self.machine.next_deadline();
        loop {
            tokio::select! {
                Some(input) = self.received.recv() => return input,
                input = next_of_launcher(&mut self.launcher) => {
                    if matches!(input, SupervisorInput::Exited(_)) {
                        self.launcher = None;
                    }
                    return input;
                }
                () = self.services.is_done() => {
                    if !std::mem::take(&mut self.services.is_outdated) {
                        return SupervisorInput::Served;
                    }
                    self.update_services();
                }
                () = passes(self.started, deadline) => return SupervisorInput::Time,
            }
        }
    }

    fn now(&self) -> Now {
        Now { since_start: self.started.elapsed(), unix_seconds: (self.clock)() }
    }

    /// Executes an action; what is known of it at once comes back.
    fn execute(&mut self, action: SupervisorAction<Client>) -> Option<SupervisorInput<Client>> {
        match action {
            SupervisorAction::Attach => {
                let pod = self.vm.pod.clone();
                self.off_the_loop(
                    move || pod.attach().map(Attached::from),
                    |attached| {
                        let panicked =
                            |panic| Err(StartFailure::failed(format!("attaching the networks panicked: {panic}")));
                        SupervisorInput::Attached(attached.unwrap_or_else(panicked))
                    },
                );
            }
            SupervisorAction::Launch => return Some(SupervisorInput::Launched(self.launch())),
            SupervisorAction::StartProbes { addresses } => {
                let control = self.vm.store.layout().vm(&self.vm.key).control_socket();
                let begin = |instance: &VirtualMachineInstance| Probes::begin(&instance.spec, &addresses, &control);
                let probes = self.instance.as_ref().map(begin);
                self.with_launcher(|launcher| launcher.set_probes(probes));
            }
            SupervisorAction::PauseProbes(pause) => self.with_launcher(|launcher| launcher.pause_probes(pause)),
            SupervisorAction::StopGuest { grace } => {
                let inputs = self.inputs.clone();
                self.with_launcher(|launcher| {
                    let accepted = launcher.stop_guest(grace);
                    tokio::spawn(async move {
                        send(&inputs, SupervisorInput::StopAnswered { accepted: accepted.await }).await;
                    });
                });
            }
            SupervisorAction::TerminateLauncher => self.with_launcher(|launcher| launcher.terminate()),
            SupervisorAction::KillLauncher => self.with_launcher(LauncherRun::kill),
            SupervisorAction::Save(status) => {
                let saved = self.vm.store.put_status(&self.vm.lock, &status);
                return Some(SupervisorInput::Saved(saved.map_err(|error| chain(&error))));
            }
            SupervisorAction::Serve => match self.services.running {
                Some(_) => self.services.is_outdated = true,
                None => self.update_services(),
            },
            SupervisorAction::Tell(report) => self.starter.send(&report),
            SupervisorAction::Answer(client, report) => client.send(&report),
            SupervisorAction::Detach => {
                let pod = self.vm.pod.clone();
                self.off_the_loop(
                    move || pod.detach(),
                    |detached| {
                        let panicked = |panic| Err(format!("removing the networks panicked: {panic}"));
                        SupervisorInput::Detached(detached.unwrap_or_else(panicked))
                    },
                );
            }
            SupervisorAction::Forget { status, remove } => {
                let vm = self.vm.clone();
                self.off_the_loop(
                    move || vm.forget(&status, remove),
                    |forgotten| {
                        let panicked = |panic| Err(format!("recording the end panicked: {panic}"));
                        SupervisorInput::Forgotten(forgotten.unwrap_or_else(panicked))
                    },
                );
            }
            // The loop ends before this is executed.
            SupervisorAction::Exit(_) => {}
        }
        None
    }

    fn launch(&mut self) -> Result<Option<Process>, StartFailure> {
        let vm = self.vm.store.layout().vm(&self.vm.key);
        // The launcher removes it as well.
        if let Err(error) = files::remove_file(&vm.outcome()) {
            tracing::warn!(error = %chain(&error), "an old outcome file cannot be removed");
        }
        let child = self.vm.pod.launch()?;
        let launcher = LauncherRun::follow(child, &vm, self.vm.pod.follow_links());
        let process = launcher.process();
        self.launcher = Some(launcher);
        Ok(process)
    }

    /// What is meant for a launcher that has ended in this very moment is dropped.
    fn with_launcher(&mut self, act: impl FnOnce(&mut LauncherRun)) {
        if let Some(launcher) = &mut self.launcher {
            act(launcher);
        }
    }

    fn update_services(&mut self) {
        let pod = self.vm.pod.clone();
        self.services.running = Some(in_a_thread(move || pod.serve()));
    }

    /// Does work that may block; its result comes as an input.
    fn off_the_loop<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
        input: impl FnOnce(Result<T, JoinError>) -> SupervisorInput<Client> + Send + 'static,
    ) {
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let result = in_a_thread(work).await;
            send(&inputs, input(result)).await;
        });
    }
}

/// Does work that may block, inside the log span of the caller.
fn in_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> tokio::task::JoinHandle<T> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
}

impl<P: Pod> Vm<P> {
    /// Records the end, or removes the record, and restores the host if this was the last VM. Everything is tried.
    fn forget(&self, status: &Status, remove: bool) -> Result<(), String> {
        // The socket goes first, so that no new client connects and waits for an answer.
        let socket = files::remove_file(&self.store.layout().vm(&self.key).supervisor_socket());
        if let Err(error) = socket {
            tracing::warn!(error = %chain(&error), "the control socket cannot be removed");
        }
        let host = self.store.lock_host();
        let recorded = match (&host, remove) {
            (Ok(host), true) => self.store.remove(host, &self.key, &self.lock),
            _ => self.store.put_status(&self.lock, status),
        };
        let mut failures: Vec<_> = recorded.err().iter().map(|error| chain(error)).collect();
        match host {
            Ok(host) if status.on_host == OnHost::Absent => {
                failures.extend(self.pod.release_host(&host).err().map(|failure| failure.message));
            }
            Ok(_) => {}
            Err(error) => failures.push(chain(&error)),
        }
        if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
    }
}

impl ServicesUpdate {
    /// When the update that runs is done; never, if none runs.
    async fn is_done(&mut self) {
        match &mut self.running {
            Some(running) => {
                if let Err(panic) = running.await {
                    tracing::warn!(%panic, "the update of Services panicked");
                }
                self.running = None;
            }
            None => std::future::pending().await,
        }
    }
}

/// A send that fails means that the loop has ended.
async fn send(inputs: &mpsc::Sender<SupervisorInput<Client>>, input: SupervisorInput<Client>) {
    let _ = inputs.send(input).await;
}

async fn next_of_launcher(launcher: &mut Option<LauncherRun>) -> SupervisorInput<Client> {
    match launcher {
        Some(launcher) => launcher.next().await,
        None => std::future::pending().await,
    }
}

async fn passes(started: Instant, deadline: Option<Duration>) {
    match deadline.and_then(|deadline| started.checked_add(deadline)) {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
