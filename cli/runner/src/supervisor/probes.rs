//! Readiness and liveness probes, as kubelet does them.
//!
//! *Flow.* From the moment the guest runs, each probe has a task: wait, ask, tally; only a changed verdict is reported.
//! While the guest is paused no probe runs, and an answer that arrives then does not count.
//! *Guarantees.* A guest with a readiness probe is not ready before that has succeeded; one with a liveness probe lives until
//! that has failed. The tasks end with [`Probes`].

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::kubevirt::{Probe, ProbeAction, Spec};
use protocol::agent::Execute;
use protocol::client;
use protocol::control::{Answer, Report, Request, Verb};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::http::Get;

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Whether the guest may receive traffic.
    Readiness,
    /// Whether it must be started again.
    Liveness,
}

/// The probes of one run of a guest.
#[derive(Debug)]
pub(super) struct Probes {
    verdicts: mpsc::Receiver<(Purpose, bool)>,
    runs: watch::Sender<bool>,
    /// Ends the tasks when dropped.
    _tasks: JoinSet<()>,
}

impl Probes {
    /// Begins to ask a guest that has just begun to run: by its addresses, or by its agent through the launcher's socket.
    #[must_use]
    pub(super) fn begin(spec: &Spec, addresses: &[IpAddr], control: &Path) -> Self {
        let (tell, verdicts) = mpsc::channel(4);
        let (runs, guest) = watch::channel(true);
        let mut tasks = JoinSet::new();
        let probes = [(Purpose::Readiness, &spec.readiness_probe), (Purpose::Liveness, &spec.liveness_probe)];
        for (purpose, probe) in probes {
            let Some(probe) = probe.clone() else { continue };
            let target = match probe.action.is_by_agent() {
                true => Some(Target::Launcher(control.to_owned())),
                false => addresses.first().copied().map(Target::Guest),
            };
            if let Some(target) = target {
                let asking = Asking { purpose, probe, target, guest: guest.clone() };
                tasks.spawn(asking.again_and_again(tell.clone()));
            }
        }
        Self { verdicts, runs, _tasks: tasks }
    }

    /// Begins to rest, or ends it.
    pub(super) fn rest(&self, rest: bool) {
        self.runs.send_if_modified(|runs| std::mem::replace(runs, !rest) == rest);
    }

    /// The next changed verdict; never, if there are no probes.
    pub(super) async fn next(&mut self) -> (Purpose, bool) {
        match self.verdicts.recv().await {
            Some(verdict) => verdict,
            None => std::future::pending().await,
        }
    }
}

/// What a probe sends its request to.
enum Target {
    /// The guest, over the network.
    Guest(IpAddr),
    /// The launcher's control socket, for the guest's agent.
    Launcher(PathBuf),
}

/// One probe and whom it asks.
struct Asking {
    purpose: Purpose,
    probe: Probe,
    target: Target,
    guest: watch::Receiver<bool>,
}

impl Asking {
    async fn again_and_again(mut self, tell: mpsc::Sender<(Purpose, bool)>) {
        let Probe { initial_delay, timeout, period, .. } = self.probe;
        tokio::time::sleep(initial_delay).await;
        let mut tally = Tally::new(self.purpose, &self.probe);
        let mut ticks = tokio::time::interval(period.max(Duration::from_secs(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks.tick().await;
        while self.guest.wait_for(|runs| *runs).await.is_ok() {
            let answer = tokio::time::timeout(timeout, self.target.ask(&self.probe)).await;
            // It came to a stand meanwhile: that is no answer, neither good nor bad.
            if self.guest.has_changed().unwrap_or(true) {
                continue;
            }
            tracing::debug!(purpose = ?self.purpose, ?answer, "probe");
            if let Some(verdict) = tally.note(matches!(answer, Ok(Ok(true))))
                && tell.send((self.purpose, verdict)).await.is_err()
            {
                return;
            }
            ticks.tick().await;
        }
    }
}

/// Answers in a row, and the verdict they lead to.
#[derive(Debug)]
struct Tally {
    success_threshold: u32,
    failure_threshold: u32,
    good: u32,
    bad: u32,
    verdict: bool,
}

impl Tally {
    fn new(purpose: Purpose, probe: &Probe) -> Self {
        let (success_threshold, failure_threshold) = (probe.success_threshold, probe.failure_threshold);
        Self { success_threshold, failure_threshold, good: 0, bad: 0, verdict: purpose == Purpose::Liveness }
    }

    /// Counts an answer; returns the verdict when it changes.
    fn note(&mut self, is_good: bool) -> Option<bool> {
        (self.good, self.bad) =
            if is_good { (self.good.saturating_add(1), 0) } else { (0, self.bad.saturating_add(1)) };
        let verdict = match self.verdict {
            false => self.good >= self.success_threshold,
            true => self.bad < self.failure_threshold,
        };
        let changed = verdict != self.verdict;
        self.verdict = verdict;
        changed.then_some(verdict)
    }
}

impl Target {
    async fn ask(&self, probe: &Probe) -> std::io::Result<bool> {
        match self {
            Self::Guest(address) => ask(&probe.action, *address).await,
            Self::Launcher(control) => ask_agent(control, &probe.action, probe.timeout).await,
        }
    }
}

async fn ask(action: &ProbeAction, guest: IpAddr) -> std::io::Result<bool> {
    match action {
        ProbeAction::TcpSocket { host, port } => {
            connect(host.as_deref(), guest, *port).await?;
            Ok(true)
        }
        ProbeAction::HttpGet { host, port, path, headers, .. } => {
            let get = Get { host: host.as_deref(), guest, port: *port, path, headers };
            get.is_success().await.map_err(std::io::Error::other)
        }
        ProbeAction::Exec { .. } | ProbeAction::AgentPing => Err(std::io::ErrorKind::Unsupported.into()),
    }
}

async fn ask_agent(control: &Path, action: &ProbeAction, timeout: Duration) -> std::io::Result<bool> {
    let request = match action {
        ProbeAction::Exec { command } => {
            let execute = Execute { command: command.clone(), timeout_seconds: timeout.as_secs() };
            Request { execute: Some(execute), ..Request::new(1, Verb::AgentExecute) }
        }
        _ => Request::new(1, Verb::AgentPing),
    };
    let control = control.to_owned();
    let asked = tokio::task::spawn_blocking(move || client::ask_with(&control, &request, timeout));
    Ok(match asked.await.map_err(std::io::Error::other)?? {
        Answer::Ok { ok: Report::Executed { executed }, .. } => executed.exit_code == 0,
        Answer::Ok { .. } => true,
        Answer::Error { .. } => false,
    })
}

async fn connect(host: Option<&str>, guest: IpAddr, port: u16) -> std::io::Result<TcpStream> {
    match host {
        None => TcpStream::connect(SocketAddr::new(guest, port)).await,
        Some(host) => TcpStream::connect((host, port)).await,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn probe(success_threshold: u32, failure_threshold: u32, port: u16) -> Probe {
        Probe {
            action: ProbeAction::TcpSocket { host: None, port },
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            success_threshold,
            failure_threshold,
        }
    }

    // spec: SVC-12
    #[test]
    fn readiness_is_earned_and_lost_by_answers_in_a_row() {
        let mut tally = Tally::new(Purpose::Readiness, &probe(2, 3, 80));
        let answers = [true, false, true, true, false, false, true, false, false, false, false];
        let changes = answers.map(|answer| tally.note(answer));
        let mut expected = [None; 11];
        (expected[3], expected[9]) = (Some(true), Some(false));
        assert_eq!(changes, expected);
    }

    // spec: SVC-12
    #[test]
    fn a_guest_lives_until_its_probe_has_failed_often_enough() {
        let mut tally = Tally::new(Purpose::Liveness, &probe(1, 2, 80));
        assert_eq!(
            [true, false, true, false, false].map(|answer| tally.note(answer)),
            [None, None, None, None, Some(false)]
        );
    }

    // spec: SVC-12
    #[tokio::test(flavor = "current_thread")]
    async fn probes_rest_while_the_guest_is_paused_and_the_next_answer_counts() {
        let instance = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": "web"},
            "spec": {"domain": {"memory": {"guest": "64Mi"}, "devices": {}},
                "livenessProbe": {"tcpSocket": {"port": 1}, "failureThreshold": 1}}});
        let instance = crate::service_store::instance_of(&instance).unwrap();
        let mut probes = Probes::begin(&instance.spec, &["127.0.0.1".parse().unwrap()], Path::new("/nowhere"));
        probes.rest(true);
        assert!(tokio::time::timeout(Duration::from_millis(300), probes.next()).await.is_err());
        probes.rest(false);
        assert_eq!(probes.next().await, (Purpose::Liveness, false));
    }

    // spec: AGENT-5
    #[tokio::test(flavor = "current_thread")]
    async fn a_guest_is_asked_by_its_agent_through_the_launchers_socket() {
        use std::io::{BufRead as _, Write as _};
        let folder = tempfile::tempdir().unwrap();
        let control = folder.path().join("control.sock");
        let listener = std::os::unix::net::UnixListener::bind(&control).unwrap();
        let launcher = std::thread::spawn(move || {
            let answers = [
                "\"ok\":{}",
                "\"error\":\"no\"",
                "\"ok\":{\"executed\":{\"exitCode\":0,\"output\":\"\"}}",
                "\"ok\":{\"executed\":{\"exitCode\":1,\"output\":\"\"}}",
            ];
            answers.map(|answer| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut line = String::new();
                std::io::BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
                stream.write_all(format!("{{\"id\":1,{answer}}}\n").as_bytes()).unwrap();
                line
            })
        });
        let exec = ProbeAction::Exec { command: vec!["true".to_owned()] };
        let timeout = Duration::from_secs(3);
        for (action, expected) in
            [(&ProbeAction::AgentPing, true), (&ProbeAction::AgentPing, false), (&exec, true), (&exec, false)]
        {
            assert_eq!(ask_agent(&control, action, timeout).await.unwrap(), expected);
        }
        let lines = launcher.join().unwrap();
        assert!(
            lines[0].contains("agentPing") && lines[2].contains(r#""execute":{"command":["true"],"timeoutSeconds":3}"#)
        );
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_port_that_accepts_is_ready_and_one_that_closes_is_not_any_more() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let loopback = "127.0.0.1".parse().unwrap();
        assert!(ask(&probe(1, 1, port).action, loopback).await.unwrap());
        drop(listener);
        assert!(ask(&probe(1, 1, port).action, loopback).await.is_err());
    }
}
