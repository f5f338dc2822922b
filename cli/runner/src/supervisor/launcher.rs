//! One launcher while it runs: its process, its control socket, its guest's probes and the pod's links. All of them are
//! closed when the run ends.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::task::JoinHandle;

use super::control::{self, Control};
use super::links::{LinkEvent, LinkWatch};
use super::machine::{LauncherExit, SupervisorInput};
use super::outcome;
use super::pod::StartFailure;
use super::probes::{Probes, Purpose};
use crate::child::Child;
use crate::layout::VmLayout;
use crate::process::{self, Process};

/// A launcher that was started.
#[derive(Debug)]
pub(super) struct LauncherRun {
    child: Child,
    process: Option<Process>,
    control: Control,
    control_socket: PathBuf,
    outcome_file: PathBuf,
    probes: Option<Probes>,
    links: Option<LinkWatch>,
    /// Waits for the rest of the launcher's session once its first process has ended.
    ending: Option<JoinHandle<LauncherExit>>,
}

impl LauncherRun {
    /// Follows a launcher that has just been started for `vm`.
    pub(super) fn follow(child: Child, vm: &VmLayout, links: Option<LinkWatch>) -> Self {
        let process = child.id().and_then(|pid| Process::noted(pid.cast_signed()));
        let (control_socket, outcome_file) = (vm.control_socket(), vm.outcome());
        let control = Control::of(&control_socket);
        Self { child, process, control, control_socket, outcome_file, probes: None, links, ending: None }
    }

    /// The process, to be recorded; `None` when it has ended already.
    pub(super) fn process(&self) -> Option<Process> {
        self.process
    }

    /// The next thing that happens to it; `Exited` is the last. May be cancelled and called again.
    pub(super) async fn next<C>(&mut self) -> SupervisorInput<C> {
        loop {
            if let Some(ending) = &mut self.ending {
                let panicked = |panic| failed(&io::Error::other(panic));
                return SupervisorInput::Exited(ending.await.unwrap_or_else(panicked));
            }
            tokio::select! {
                status = self.child.wait() => {
                    let (process, outcome_file) = (self.process, self.outcome_file.clone());
                    self.ending = Some(tokio::spawn(end(status, process, outcome_file)));
                }
                event = self.control.next() => return SupervisorInput::Launcher(event),
                (purpose, verdict) = next_verdict(&mut self.probes) => return SupervisorInput::Probe(purpose, verdict),
                event = next_link(&mut self.links) => event.log(),
            }
        }
    }

    /// Starts the probes of its guest.
    pub(super) fn set_probes(&mut self, probes: Option<Probes>) {
        self.probes = probes;
    }

    /// Stops probing, or goes on.
    pub(super) fn pause_probes(&self, pause: bool) {
        if let Some(probes) = &self.probes {
            probes.rest(pause);
        }
    }

    /// Requests it to end its guest within `grace`. Returns whether it accepted, after at most two seconds.
    pub(super) fn stop_guest(&self, grace: Duration) -> impl Future<Output = bool> + Send + 'static {
        let socket = self.control_socket.clone();
        async move { control::request_stop(&socket, grace).await }
    }

    /// Sends SIGTERM: the launcher ends its guest within the grace period.
    pub(super) fn terminate(&self) {
        if let Some(Err(error)) = self.process.map(|process| process.signal(Signal::SIGTERM)) {
            tracing::warn!(%error, "the launcher cannot be sent SIGTERM");
        }
    }

    /// Sends SIGKILL to the launcher alone.
    pub(super) fn kill(&mut self) {
        // It may have ended in this very moment; then there is nothing to kill.
        drop(self.child.start_kill());
    }
}

/// Waits until all processes of the launcher's session have ended: a launcher that was killed is gone before its engine has
/// closed taps and disks, which the next run needs.
async fn end(status: io::Result<ExitStatus>, process: Option<Process>, outcome_file: PathBuf) -> LauncherExit {
    const STEP: Duration = Duration::from_millis(5);
    const STEPS: usize = 2000;
    if let Some(process) = process {
        let mut steps = 0..STEPS;
        while process::is_session_left(process.pid) {
            if steps.next().is_none() {
                tracing::warn!("the engine of a launcher that has ended does not end");
                break;
            }
            tokio::time::sleep(STEP).await;
        }
    }
    match status {
        Ok(status) => outcome::launcher_exit(status, Path::new(&outcome_file)),
        Err(error) => failed(&error),
    }
}

fn failed(error: &io::Error) -> LauncherExit {
    LauncherExit::failed(StartFailure::failed(format!("waiting for the launcher: {error}")))
}

async fn next_verdict(probes: &mut Option<Probes>) -> (Purpose, bool) {
    match probes {
        Some(probes) => probes.next().await,
        None => std::future::pending().await,
    }
}

async fn next_link(links: &mut Option<LinkWatch>) -> LinkEvent {
    if let Some(watch) = links {
        if let Some(event) = watch.next().await {
            return event;
        }
        tracing::warn!("links are not followed any more");
        *links = None;
    }
    std::future::pending().await
}
