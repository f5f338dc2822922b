//! Events of instances: one when something first prevents an instance from running, one when it fails; and what KubeVirt's
//! node agents tell of an ordinary life, in its words: Started, ShuttingDown, Stopped, Deleted.

use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource as _};

use crate::MANAGER;
use crate::objects::{Condition, InstanceStatus, Phase, VirtualMachineInstance};

/// Conditions that say what prevents an instance from running.
const TELLING: [&str; 2] = ["Synchronized", "PodScheduled"];
/// Kubernetes' bound on the text of an event, in bytes.
const LONGEST_NOTE: usize = 1024;

/// Writes events in the name of one replica.
pub(crate) fn recorder(client: Client, replica: &str) -> Recorder {
    Recorder::new(client, Reporter { controller: MANAGER.to_owned(), instance: Some(replica.to_owned()) })
}

/// What a pass does to an instance, beyond its status.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Done {
    /// Its pod is deleted, because it is: the guest is asked to shut down.
    pub(crate) is_shut_down: bool,
    /// Its last pod is gone: it is let go.
    pub(crate) is_let_go: bool,
}

/// Publishes what a pass over an instance is worth telling. An event that cannot be written changes nothing.
pub(crate) async fn publish(recorder: &Recorder, object: &VirtualMachineInstance, after: &InstanceStatus, done: Done) {
    let before = object.status.clone().unwrap_or_default();
    for event in obstacle(&before, after).into_iter().chain(life(&before, after, done)) {
        if let Err(error) = recorder.publish(&event, &object.object_ref(&())).await {
            tracing::debug!(%error, "an event is not written");
        }
    }
}

/// What is told of a guest that ran.
fn life(before: &InstanceStatus, after: &InstanceStatus, done: Done) -> Option<Event> {
    let turns = |phase| after.phase == Some(phase) && before.phase != Some(phase);
    let (reason, note) = match before.phase {
        _ if turns(Phase::Running) => ("Started", "VirtualMachineInstance started."),
        Some(Phase::Running) if done.is_shut_down => ("ShuttingDown", "Signaled Graceful Shutdown"),
        _ if done.is_let_go && has_run(before) => ("Deleted", "Signaled Deletion"),
        _ if turns(Phase::Succeeded) => ("Stopped", "The VirtualMachineInstance was shut down."),
        _ => return None,
    };
    Some(Event {
        type_: EventType::Normal,
        reason: reason.to_owned(),
        note: Some(note.to_owned()),
        action: "Run".to_owned(),
        secondary: None,
    })
}

fn has_run(status: &InstanceStatus) -> bool {
    status.phase_transition_timestamps.iter().any(|began| began.phase == Phase::Running)
}

/// What is told: the end of an instance that failed, as a warning; a first obstacle as normal, for it may heal.
fn obstacle(before: &InstanceStatus, after: &InstanceStatus) -> Option<Event> {
    let has_failed = after.phase == Some(Phase::Failed) && before.phase != Some(Phase::Failed);
    let is_false = |status: &InstanceStatus, kind: &str| {
        let mut conditions = status.conditions.iter();
        conditions.any(|condition| condition.kind == kind && condition.status == "False")
    };
    let is_new = |condition: &&Condition| {
        TELLING.contains(&condition.kind.as_str())
            && condition.status == "False"
            && (has_failed || !is_false(before, &condition.kind))
    };
    let condition = after.conditions.iter().find(is_new)?;
    let mut note = condition.message.clone().unwrap_or_default();
    note.truncate(note.floor_char_boundary(LONGEST_NOTE));
    Some(Event {
        type_: if has_failed { EventType::Warning } else { EventType::Normal },
        reason: condition.reason.clone().unwrap_or_else(|| condition.kind.clone()),
        note: Some(note),
        action: "Run".to_owned(),
        secondary: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(phase: Phase, conditions: &[(&str, &str, &str)]) -> InstanceStatus {
        let condition = |(kind, status, reason): &(&str, &str, &str)| Condition {
            kind: (*kind).to_owned(),
            status: (*status).to_owned(),
            reason: Some((*reason).to_owned()),
            message: Some("why".to_owned()),
            last_transition_time: None,
        };
        InstanceStatus {
            phase: Some(phase),
            conditions: conditions.iter().map(condition).collect(),
            ..InstanceStatus::default()
        }
    }

    fn told(before: &InstanceStatus, after: &InstanceStatus) -> Option<(bool, String)> {
        obstacle(before, after).map(|event| (event.type_ == EventType::Warning, event.reason))
    }

    // spec: CTRL-10
    #[test]
    fn an_obstacle_that_may_heal_is_told_once_and_not_as_a_warning() {
        let fresh = status(Phase::Scheduling, &[("Ready", "False", "GuestNotRunning")]);
        let pull = status(Phase::Scheduling, &[("Synchronized", "False", "ErrImagePull")]);
        let back_off = status(Phase::Scheduling, &[("Synchronized", "False", "ImagePullBackOff")]);
        assert_eq!(told(&fresh, &pull), Some((false, "ErrImagePull".to_owned())));
        assert_eq!(told(&pull, &back_off), None);
        let unschedulable = status(Phase::Scheduling, &[("PodScheduled", "False", "Unschedulable")]);
        assert_eq!(told(&fresh, &unschedulable), Some((false, "Unschedulable".to_owned())));
    }

    // spec: CTRL-10
    #[test]
    fn a_failure_is_a_warning_also_after_an_obstacle() {
        let pull = status(Phase::Scheduling, &[("Synchronized", "False", "ErrImagePull")]);
        let failed = status(Phase::Failed, &[("Synchronized", "False", "LauncherFailed")]);
        assert_eq!(told(&pull, &failed), Some((true, "LauncherFailed".to_owned())));
        assert_eq!(told(&failed, &failed), None);
    }

    // spec: CTRL-36
    #[test]
    fn a_life_is_told_in_kubevirts_words() {
        let fresh = status(Phase::Scheduled, &[("Ready", "False", "GuestNotRunning")]);
        let began = serde_json::json!([{"phase": "Running", "phaseTransitionTimestamp": "2026-01-01T00:00:00Z"}]);
        let began: Vec<crate::objects::PhaseTransition> = serde_json::from_value(began).unwrap();
        let running = InstanceStatus { phase_transition_timestamps: began, ..status(Phase::Running, &[]) };
        let ended = InstanceStatus { phase: Some(Phase::Succeeded), ..running.clone() };
        let (nothing, down) = (Done::default(), Done { is_shut_down: true, is_let_go: false });
        let gone = Done { is_shut_down: false, is_let_go: true };
        let told = |before: &InstanceStatus, after: &InstanceStatus, done| {
            assert_eq!(obstacle(before, after).map(|event| event.reason), None);
            life(before, after, done).map(|event| event.reason)
        };
        let lives = [
            told(&InstanceStatus::default(), &fresh, nothing),
            told(&fresh, &running, nothing),
            told(&running, &running, nothing),
            told(&running, &running, down),
            told(&running, &ended, nothing),
            told(&ended, &ended, gone),
            told(&fresh, &fresh, down),
            told(&fresh, &fresh, gone),
        ];
        let expected =
            [None, Some("Started"), None, Some("ShuttingDown"), Some("Stopped"), Some("Deleted"), None, None];
        assert_eq!(lives, expected.map(|reason| reason.map(str::to_owned)));
    }
}
