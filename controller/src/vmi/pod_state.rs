//! A launcher pod reduced to what decisions need.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateWaiting, Pod, PodStatus};
use protocol::outcome::Outcome;

use super::names::{ATTEMPT, COMPUTE, OUTCOME, UNPAUSED_GATE};
use crate::objects::Condition;

/// Exit code of a launcher whose namespace lacks its wiring.
pub(crate) const NOT_WIRED: i32 = 8;

/// Where a launcher pod is in its life.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum PodState {
    /// It has no node yet, or its containers are being made; with what prevents that, if anything does.
    Waiting(Option<Obstacle>),
    /// The launcher runs.
    Running,
    /// The launcher ended.
    Ended {
        /// Exit code; `None` where the pod was lost before it was known.
        code: Option<i32>,
        /// The reason that the launcher or the kubelet gave.
        message: String,
        /// When.
        at: Option<Timestamp>,
    },
}

/// What keeps a pod from starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Obstacle {
    /// Type of the instance's condition that tells it.
    pub(crate) condition: &'static str,
    /// Reason of that condition.
    pub(crate) reason: String,
    /// Message of that condition.
    pub(crate) message: String,
}

/// Number of the pod among those of its instance.
pub(crate) fn attempt(pod: &Pod) -> u32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(ATTEMPT)).and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// The pod's state.
pub(crate) fn state(pod: &Pod) -> PodState {
    let Some(status) = &pod.status else { return PodState::Waiting(None) };
    let compute = compute(status);
    if let Some(ContainerState { terminated: Some(ended), .. }) = compute {
        let message = ended.message.as_deref().or(ended.reason.as_deref()).unwrap_or_default();
        let at = ended.finished_at.as_ref().map(|time| time.0);
        return PodState::Ended { code: Some(ended.exit_code), message: reason(message), at };
    }
    if matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
        let message = failed_copy(status).or_else(|| status.message.clone()).or_else(|| status.reason.clone());
        let message = message.unwrap_or_default();
        return PodState::Ended { code: None, message, at: None };
    }
    match compute {
        Some(ContainerState { running: Some(_), .. }) => PodState::Running,
        Some(ContainerState { waiting: Some(waiting), .. }) => {
            let of_copies = status.init_container_statuses.iter().flatten();
            let of_copies = of_copies.filter_map(|container| container.state.as_ref()?.waiting.as_ref());
            PodState::Waiting([waiting].into_iter().chain(of_copies).find_map(obstacle))
        }
        _ => PodState::Waiting(unschedulable(pod)),
    }
}

/// What keeps a container from starting; being made, and waiting for another one, is none.
fn obstacle(waiting: &ContainerStateWaiting) -> Option<Obstacle> {
    let reason = waiting.reason.clone().unwrap_or_default();
    let message = waiting.message.clone().unwrap_or_default();
    let is_normal = matches!(reason.as_str(), "" | "ContainerCreating" | "PodInitializing");
    (!is_normal).then_some(Obstacle { condition: "Synchronized", reason, message })
}

/// Why the files of a container image could not be copied.
fn failed_copy(status: &PodStatus) -> Option<String> {
    let of_copies = status.init_container_statuses.iter().flatten();
    let mut ended = of_copies.filter_map(|container| Some((container, container.state.as_ref()?.terminated.as_ref()?)));
    let (container, ended) = ended.rfind(|(_, ended)| ended.exit_code != 0)?;
    let message = ended.message.as_deref().or(ended.reason.as_deref()).unwrap_or_default();
    Some(format!("the files of image {} were not copied: {}", container.image, reason(message)))
}

fn compute(status: &PodStatus) -> Option<&ContainerState> {
    let mut containers = status.container_statuses.iter().flatten();
    containers.find(|container| container.name == COMPUTE)?.state.as_ref()
}

/// Whether the launcher may still run: its pod exists and has not ended.
pub(crate) fn may_run(pod: &Pod) -> bool {
    !matches!(state(pod), PodState::Ended { .. })
}

/// Whether the pod is kept only until it is known how its launcher ended, and no more will be known: the launcher ended, or the
/// pod was deleted by force or before it had a node.
pub(crate) fn is_to_release(pod: &Pod) -> bool {
    let metadata = &pod.metadata;
    let is_removed = metadata.deletion_timestamp.is_some() && metadata.deletion_grace_period_seconds == Some(0);
    is_held(pod) && (is_removed || !may_run(pod))
}

/// Whether the pod stays until it is known how its launcher ended.
pub(crate) fn is_held(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|name| name == OUTCOME)
}

fn unschedulable(pod: &Pod) -> Option<Obstacle> {
    let condition = condition(pod, "PodScheduled")?;
    let is_obstacle = condition.status == "False" && condition.reason.as_deref() == Some("Unschedulable");
    is_obstacle.then(|| Obstacle {
        condition: "PodScheduled",
        reason: "Unschedulable".to_owned(),
        message: condition.message.unwrap_or_default(),
    })
}

/// A condition of the pod.
pub(crate) fn condition(pod: &Pod, kind: &str) -> Option<Condition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == kind)?;
    Some(Condition {
        kind: kind.to_owned(),
        status: found.status.clone(),
        reason: found.reason.clone(),
        message: found.message.clone(),
        last_transition_time: found.last_transition_time.clone(),
    })
}

/// Whether the readiness gate says that the guest is not paused.
pub(crate) fn is_unpaused(pod: &Pod) -> bool {
    condition(pod, UNPAUSED_GATE).is_some_and(|condition| condition.status == "True")
}

/// The addresses of the pod, the primary first.
pub(crate) fn addresses(pod: &Pod) -> Vec<String> {
    let ips = pod.status.as_ref().and_then(|status| status.pod_ips.as_ref());
    ips.into_iter().flatten().map(|ip| ip.ip.clone()).collect()
}

/// The reason in a termination message: that of the launcher's outcome, else the last line of its log.
fn reason(message: &str) -> String {
    if let Ok(outcome) = serde_json::from_str::<Outcome>(message) {
        return outcome.reason;
    }
    message.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
}
