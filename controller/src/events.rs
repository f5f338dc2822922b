//! Events of instances: one when something first prevents an instance from running, one when it fails.

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

/// Publishes what a change of status is worth telling. An event that cannot be written changes nothing.
pub(crate) async fn publish(recorder: &Recorder, object: &VirtualMachineInstance, after: &InstanceStatus) {
    let before = object.status.clone().unwrap_or_default();
    let Some(event) = event(&before, after) else { return };
    if let Err(error) = recorder.publish(&event, &object.object_ref(&())).await {
        tracing::debug!(%error, "an event is not written");
    }
}

/// What is told: the end of an instance that failed, as a warning; a first obstacle as normal, for it may heal.
fn event(before: &InstanceStatus, after: &InstanceStatus) -> Option<Event> {
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
        event(before, after).map(|event| (event.type_ == EventType::Warning, event.reason))
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

    #[test]
    fn an_ordinary_start_and_end_are_not_told() {
        let fresh = status(Phase::Scheduling, &[("Ready", "False", "GuestNotRunning")]);
        let running = status(Phase::Running, &[("Ready", "True", "")]);
        let ended = status(Phase::Succeeded, &[("Ready", "False", "GuestNotRunning")]);
        assert_eq!(
            (told(&InstanceStatus::default(), &fresh), told(&fresh, &running), told(&running, &ended)),
            (None, None, None)
        );
    }
}
