//! Requests of users in `status.stateChangeRequests`: only the first is executed, and it goes once it is satisfied.

use super::object::{StateChange, StateChangeRequest};
use crate::objects::{Phase, VirtualMachineInstance};

/// Key and value of a start whose guest is to wait for `unpause`.
const PAUSED: (&str, &str) = ("paused", "true");

/// Removes the requests at the head that are satisfied by the instance as it is.
pub(super) fn trim(requests: &mut Vec<StateChangeRequest>, vmi: Option<&VirtualMachineInstance>) {
    while requests.first().is_some_and(|first| is_satisfied(first, vmi)) {
        requests.remove(0);
    }
}

/// A stop is satisfied once its instance is gone, a start once an instance lives.
fn is_satisfied(request: &StateChangeRequest, vmi: Option<&VirtualMachineInstance>) -> bool {
    match (request.action, vmi) {
        (StateChange::Stop, None) => true,
        (StateChange::Stop, Some(vmi)) => request.uid.is_none() || request.uid != vmi.metadata.uid,
        (StateChange::Start, None) => false,
        (StateChange::Start, Some(vmi)) => is_alive(vmi),
    }
}

/// Whether an instance has neither ended nor been deleted.
fn is_alive(vmi: &VirtualMachineInstance) -> bool {
    let phase = vmi.status.as_ref().and_then(|status| status.phase);
    vmi.metadata.deletion_timestamp.is_none() && !phase.is_some_and(Phase::is_final)
}

/// Whether the first request is a start.
pub(super) fn asks_start(requests: &[StateChangeRequest]) -> bool {
    requests.first().is_some_and(|first| first.action == StateChange::Start)
}

/// Whether the first request is a start that leaves the guest paused.
pub(super) fn asks_paused_start(requests: &[StateChangeRequest]) -> bool {
    let first = requests.first().filter(|first| first.action == StateChange::Start);
    first.is_some_and(|first| first.data.get(PAUSED.0).is_some_and(|value| value == PAUSED.1))
}

/// Whether the first request is a stop of this instance.
pub(super) fn asks_stop(requests: &[StateChangeRequest], vmi: &VirtualMachineInstance) -> bool {
    requests
        .first()
        .is_some_and(|first| first.action == StateChange::Stop && first.uid.is_some() && first.uid == vmi.metadata.uid)
}

/// A start by the controller itself, after an instance failed.
pub(super) fn start() -> StateChangeRequest {
    StateChangeRequest { action: StateChange::Start, data: <_>::default(), uid: None }
}
