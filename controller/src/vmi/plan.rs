//! What is to be done for an instance, decided without I/O from the object, its pods and the time.
//!
//! Flow: no pod → create one; pod waits → tell why; launcher runs → open the gate, then `Running`; launcher ended →
//! `Succeeded`, `Failed`, or a new attempt where its network was not wired.
//! Guarantees: an attempt starts only when no earlier pod of the VM may run; a final phase never changes; a pod that ended is
//! there until the status says how, also when no controller runs meanwhile.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use protocol::control::{State, Status};
use protocol::outcome::{Outcome, Verdict};

use super::interfaces;
use super::launch::Launch;
use super::migratable;
use super::names::UNPAUSED_GATE;
use super::pod_state::{self, NOT_WIRED, Obstacle, PodState};
use super::sandbox::{Complaint, is_same_but_for_addresses};
use super::status::StatusWriter;
use crate::objects::{InstanceStatus, Phase, VirtualMachineInstance};

/// Keeps an instance until its pods are gone.
pub(crate) const FINALIZER: &str = "kubevirt.io/foregroundDeleteVirtualMachine";

/// The first wait before a pod that was not wired is replaced; it doubles with each further pod.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
/// How often a PersistentVolumeClaim that does not exist is looked for.
const CLAIM_PERIOD: Duration = Duration::from_secs(5);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(60);
/// How long the kubelet may take to count the gate into the pod's readiness before the guest is reported as not ready.
const GATE_PATIENCE: Duration = Duration::from_secs(5);

/// Reason of the condition that says that the API server refuses an object of the instance, as KubeVirt has it.
const FAILED_CREATE: &str = "FailedCreate";

/// How long after its grace period a pod may still be there before that is reported.
const OVERDUE: Duration = Duration::from_secs(15);

/// What a decision is made from.
#[derive(Debug)]
pub(crate) struct Observed<'a> {
    /// The instance.
    pub(crate) object: &'a VirtualMachineInstance,
    /// What its specification asks for, or everything that is wrong with it.
    pub(crate) launch: &'a Result<Launch, Vec<String>>,
    /// PersistentVolumeClaims that it names and that do not exist.
    pub(crate) missing_claims: &'a [String],
    /// PersistentVolumeClaims that it names and that an importer still fills.
    pub(crate) filling_claims: &'a [String],
    /// Its pods, without those that wait for its guest.
    pub(crate) pods: &'a [Pod],
    /// Pods that wait for its guest, made by migrations.
    pub(crate) targets: &'a [Pod],
    /// Pods of instances that had its name before.
    pub(crate) earlier: &'a [Pod],
    /// What the kubelet said last that keeps the newest pod from its containers.
    pub(crate) complaint: Option<Complaint>,
    /// What the launcher of the newest pod last told its node's agent; `None` without an agent.
    pub(crate) launcher: Option<Status>,
    /// How that launcher ended, if the agent has read it: it does before the kubelet knows.
    pub(crate) outcome: Option<Outcome>,
    /// The time.
    pub(crate) now: Timestamp,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// Whether the object is to carry [`FINALIZER`].
    pub(crate) finalizer: bool,
    /// The status to write.
    pub(crate) status: InstanceStatus,
    /// What to do after the status is written, in this order.
    pub(crate) actions: Vec<Action>,
    /// When to look again although nothing changed.
    pub(crate) retry_after: Option<Duration>,
}

/// A step on objects other than the instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Creates the Secret with the launch file, if it does not exist.
    CreateSecret,
    /// Creates the pod of an attempt, if it does not exist.
    CreatePod {
        /// Its number, from 1.
        attempt: u32,
    },
    /// Deletes a pod with its grace period.
    DeletePod {
        /// Its name.
        name: String,
    },
    /// Lets go of a pod whose end is in the status.
    ReleasePod {
        /// Its name.
        name: String,
    },
    /// Lets Services reach the guest of a pod, or no longer.
    SetGate {
        /// The pod's name.
        name: String,
        /// Whether they reach it.
        is_open: bool,
    },
    /// Has the launcher of the newest pod give the guest's link of a NIC a carrier, or take it.
    SetLink {
        /// Name of the NIC.
        nic: String,
        /// Whether it is to have one.
        up: bool,
    },
}

/// Decides for one instance.
pub(crate) fn plan(observed: &Observed<'_>) -> Plan {
    let mut planner = Planner::new(observed);
    if observed.object.metadata.deletion_timestamp.is_some() {
        planner.end();
    } else if !planner.status.phase().is_some_and(Phase::is_final) {
        planner.run();
    }
    planner.finish()
}

/// The status after the API server refused to create an object of the instance: for a quota, a policy, its size.
pub(crate) fn refused(status: InstanceStatus, message: &str, now: Timestamp) -> InstanceStatus {
    let mut status = StatusWriter::new(status, now);
    status.condition("Synchronized", "False", FAILED_CREATE, message);
    status.into_status()
}

struct Planner<'a> {
    observed: &'a Observed<'a>,
    status: StatusWriter,
    finalizer: bool,
    actions: Vec<Action>,
    retry_after: Option<Duration>,
}

impl<'a> Planner<'a> {
    fn new(observed: &'a Observed<'a>) -> Self {
        let status = StatusWriter::new(observed.object.status.clone().unwrap_or_default(), observed.now);
        let finalizer = observed.object.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER);
        Self { observed, status, finalizer, actions: Vec::new(), retry_after: None }
    }

    /// The pod of the last attempt.
    fn current(&self) -> Option<&'a Pod> {
        self.observed.pods.iter().max_by_key(|pod| pod_state::attempt(pod))
    }

    fn run(&mut self) {
        let Some(pod) = self.current() else {
            return match self.status.phase() {
                None | Some(Phase::Pending | Phase::Scheduling | Phase::Unknown) => self.create(1),
                Some(_) => self.fail("PodNotFound", "the launcher pod was removed before the launcher ended"),
            };
        };
        match pod_state::state(pod) {
            PodState::Ended { code: Some(NOT_WIRED), message, at } => self.replace(pod, &message, at),
            PodState::Ended { code, message, .. } => self.settle(code, &message),
            // A pod without wiring is replaced once it has ended.
            _ if let Some(outcome) = self.outcome() => self.settle(Some(outcome.exit_code().into()), &outcome.reason),
            _ if pod.metadata.deletion_timestamp.is_some() => {
                self.status.condition("Ready", "False", "PodTerminating", "the launcher pod is being deleted");
                self.expect_gone(pod);
            }
            PodState::Waiting(obstacle) => self.wait(pod, obstacle),
            PodState::Running => self.serve(pod),
        }
    }

    /// A pod that is still there long after its grace period is on a node that does not answer: says what that means.
    fn expect_gone(&mut self, pod: &Pod) {
        let Some(due) = &pod.metadata.deletion_timestamp else { return };
        let overdue = self.status.since(due.0);
        if overdue < OVERDUE {
            self.retry_after = self.status.until(due.0).checked_add(OVERDUE.saturating_sub(overdue));
            return;
        }
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        let message = format!(
            "pod {name} should have ended, and its node {node} does not say that it has: no other launcher starts until it does, or \
             until the node is off and has the taint node.kubernetes.io/out-of-service"
        );
        self.status.condition("Synchronized", "False", "TerminationOverdue", &message);
    }

    /// How the launcher of the newest pod ended, where that decides about the instance.
    fn outcome(&self) -> Option<&'a Outcome> {
        self.observed.outcome.as_ref().filter(|outcome| outcome.outcome != Verdict::NotWired)
    }

    fn create(&mut self, attempt: u32) {
        if let Err(complaints) = self.observed.launch {
            self.status.enter(Phase::Pending);
            return self.status.condition("Synchronized", "False", "Invalid", &complaints.join("; "));
        }
        if let [claim, ..] = self.observed.missing_claims {
            return self.wait_for_claim(claim, "FailedPvcNotFound", "does not exist, waiting for it to appear");
        }
        if let [claim, ..] = self.observed.filling_claims {
            return self.wait_for_claim(
                claim,
                "ClaimNotFilled",
                "is still being filled, waiting for the import to end",
            );
        }
        // What an earlier pod writes to, a second launcher must not open.
        if let Some(earlier) = self.observed.earlier.iter().find(|pod| pod_state::may_run(pod)) {
            let name = earlier.metadata.name.as_deref().unwrap_or_default();
            self.status.enter(Phase::Pending);
            let message = format!("waits until pod {name}, which ran an earlier instance of this name, is gone");
            return self.status.condition("Synchronized", "False", "EarlierPodExists", &message);
        }
        self.finalizer = true;
        self.status.enter(Phase::Scheduling);
        self.status.condition("Ready", "False", "GuestNotRunning", "the launcher pod has not started");
        // A refusal stays until the pod exists.
        if attempt == 1 && self.status.message("Synchronized", FAILED_CREATE).is_none() {
            self.status.remove_conditions(&["Synchronized"]);
        }
        self.actions.extend([Action::CreateSecret, Action::CreatePod { attempt }]);
    }

    fn wait_for_claim(&mut self, claim: &str, reason: &str, why: &str) {
        let namespace = self.observed.object.metadata.namespace.as_deref().unwrap_or_default();
        self.status.enter(Phase::Pending);
        self.retry_after = Some(CLAIM_PERIOD);
        self.status.condition("Synchronized", "False", reason, &format!("PVC {namespace}/{claim} {why}"));
    }

    fn wait(&mut self, pod: &Pod, obstacle: Option<Obstacle>) {
        let refused = self.observed.complaint.clone().map(|Complaint { reason, message }| Obstacle {
            condition: "Synchronized",
            reason,
            message,
        });
        match obstacle.or(refused) {
            Some(Obstacle { condition, reason, message }) => {
                self.status.place(pod);
                // A retry with another address is no news.
                let told =
                    self.status.message(condition, &reason).filter(|told| is_same_but_for_addresses(told, &message));
                self.status.condition(condition, "False", &reason, &told.unwrap_or(message));
            }
            None => {
                self.status.remove_conditions(&["PodScheduled"]);
                if self.status.message("Synchronized", FAILED_CREATE).is_some() {
                    self.status.remove_conditions(&["Synchronized"]);
                }
            }
        }
    }

    fn serve(&mut self, pod: &Pod) {
        // Without an agent a launcher that runs counts as a guest that runs: it starts the guest within half a second.
        let state = self.observed.launcher.as_ref().map_or(State::Running, |status| status.state);
        if state == State::Starting {
            return;
        }
        let (gate, is_paused) = (pod_state::condition(pod, UNPAUSED_GATE), state == State::Paused);
        if pod_state::is_unpaused(pod) == is_paused {
            let name = pod.metadata.name.clone().unwrap_or_default();
            self.actions.push(Action::SetGate { name, is_open: !is_paused });
            // The change of the pod leads to the next pass.
            return;
        }
        // The kubelet counts the gate a moment later: one write then says both Running and Ready.
        let ready = pod_state::condition(pod, "Ready");
        let gate_age = gate.and_then(|gate| gate.last_transition_time).map(|time| self.status.since(time.0));
        let is_counted = ready.as_ref().is_some_and(|ready| ready.reason.as_deref() != Some("ReadinessGatesNotReady"));
        if !is_paused && !is_counted && gate_age.is_some_and(|age| age < GATE_PATIENCE) {
            self.retry_after = Some(GATE_PATIENCE);
            return;
        }
        self.status.place(pod);
        self.status.enter(Phase::Running);
        self.status.remove_conditions(&["Synchronized", "PodScheduled"]);
        match is_paused {
            true => self.status.condition("Paused", "True", "PausedByUser", "a user has paused the guest"),
            false => self.status.remove_conditions(&["Paused"]),
        }
        let agent = self.observed.launcher.as_ref().map(|launcher| launcher.agent.clone().unwrap_or_default());
        if let Some(agent) = &agent {
            self.status.agent(agent);
        }
        if let Ok(launch) = self.observed.launch {
            let of_guest = agent.map(|agent| agent.interfaces).unwrap_or_default();
            let launcher = self.observed.launcher.as_ref();
            self.status.interfaces(interfaces::interfaces(launch, pod, launcher, &of_guest));
            let links = launcher.map(|launcher| interfaces::differing_links(launch, launcher)).unwrap_or_default();
            self.actions.extend(links.into_iter().map(|(nic, up)| Action::SetLink { nic, up }));
            let (status, reason, message) = migratable::condition(self.observed.object, launch);
            self.status.condition(migratable::CONDITION, status, reason, message);
        }
        match ready {
            Some(ready) if ready.status == "True" => self.status.condition("Ready", "True", "", ""),
            Some(ready) => {
                let (reason, message) = (ready.reason.unwrap_or_default(), ready.message.unwrap_or_default());
                self.status.condition("Ready", "False", &reason, &message);
            }
            None => {
                self.status.condition("Ready", "False", "PodConditionMissing", "the pod has no condition Ready yet")
            }
        }
    }

    /// A pod that started before its node's plugin was in place is replaced; its guest never ran.
    fn replace(&mut self, pod: &Pod, message: &str, ended: Option<Timestamp>) {
        let attempt = pod_state::attempt(pod);
        self.status.condition("Synchronized", "False", "NotWired", message);
        let back_off = back_off(attempt);
        match ended.map(|at| self.status.since(at)).filter(|waited| *waited < back_off) {
            Some(waited) => self.retry_after = Some(back_off.saturating_sub(waited)),
            None => {
                let older = self.observed.pods.iter().filter(|other| pod_state::attempt(other) < attempt);
                self.actions
                    .extend(older.filter_map(|pod| Some(Action::DeletePod { name: pod.metadata.name.clone()? })));
                self.create(attempt.saturating_add(1));
            }
        }
    }

    fn settle(&mut self, code: Option<i32>, message: &str) {
        match code {
            Some(0) => {
                // It ran, however briefly: who counts starts that failed looks for this phase.
                self.status.enter(Phase::Running);
                self.status.enter(Phase::Succeeded);
                self.status.remove_conditions(&["Synchronized", "PodScheduled"]);
                self.status.condition("Ready", "False", "GuestNotRunning", "the guest powered off");
            }
            Some(code) => self.fail("LauncherFailed", &format!("the launcher ended with code {code}: {message}")),
            None => self.fail("PodFailed", message),
        }
    }

    fn fail(&mut self, reason: &str, message: &str) {
        self.status.enter(Phase::Failed);
        self.status.condition("Ready", "False", "GuestNotRunning", message);
        self.status.condition("Synchronized", "False", reason, message);
    }

    /// The instance is deleted: its pods first, then the object.
    fn end(&mut self) {
        let is_final = self.status.phase().is_some_and(Phase::is_final);
        let has_run = self.status.phase() == Some(Phase::Running);
        match self.current().map(pod_state::state) {
            // A pod whose launcher never ran says nothing about a guest.
            Some(PodState::Ended { code: None, .. }) if !has_run => {}
            Some(PodState::Ended { code, message, .. }) if !is_final => self.settle(code, &message),
            // Written before the kubelet knows: who asks every second sees how it ended before the object is gone.
            _ if !is_final && let Some(outcome) = self.outcome() => {
                self.settle(Some(outcome.exit_code().into()), &outcome.reason);
            }
            _ => {}
        }
        if let Some(pod) = self.current().filter(|pod| pod_state::may_run(pod)) {
            self.expect_gone(pod);
        }
        let all = self.observed.pods.iter().chain(self.observed.targets);
        let alive = all.filter(|pod| pod.metadata.deletion_timestamp.is_none());
        self.actions.extend(alive.filter_map(|pod| Some(Action::DeletePod { name: pod.metadata.name.clone()? })));
        if self.observed.pods.is_empty() && self.observed.targets.is_empty() {
            self.finalizer = false;
        }
    }

    fn finish(self) -> Plan {
        let Self { observed, status, finalizer, mut actions, retry_after } = self;
        let ended = observed.pods.iter().chain(observed.earlier).filter(|pod| pod_state::is_to_release(pod));
        actions.extend(ended.filter_map(|pod| Some(Action::ReleasePod { name: pod.metadata.name.clone()? })));
        Plan { finalizer, status: status.into_status(), actions, retry_after }
    }
}

/// The wait after the end of an attempt.
fn back_off(attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(6);
    (FIRST_BACK_OFF * 2_u32.pow(doublings)).min(LONGEST_BACK_OFF)
}
