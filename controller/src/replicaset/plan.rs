//! What is to be done for a set, decided without I/O from the object, the instances of its namespace and the time.

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::object::{ReplicaSet, ReplicaSetStatus};
use super::selector;
use crate::conditions;
use crate::objects::{Phase, VirtualMachineInstance};

/// Most instances that one pass makes or deletes.
const BURST: usize = 250;
const PAUSED: &str = "ReplicaPaused";
const FAILURE: &str = "ReplicaFailure";

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// The status to write before the actions.
    pub(super) status: ReplicaSetStatus,
    /// What to do, in this order.
    pub(super) actions: Vec<Action>,
}

/// A step on an instance, given by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Makes it the set's own: it is selected and has no owner.
    Adopt(String),
    /// Gives it up: it is not selected any more.
    Release(String),
    /// Deletes it.
    Delete(String),
    /// Creates it from the template.
    Create(String),
}

/// Decides for one set; `instances` are those of its namespace.
pub(super) fn plan(set: &ReplicaSet, instances: &[&VirtualMachineInstance], now: Timestamp) -> Plan {
    let mut actions = Vec::new();
    let is_deleted = set.metadata.deletion_timestamp.is_some();
    let owned: Vec<_> = instances.iter().copied().filter(|vmi| owner(vmi) == set.metadata.uid.as_deref()).collect();
    let is_selected = |vmi: &VirtualMachineInstance| {
        vmi.metadata.labels.as_ref().is_some_and(|labels| selector::matches(&set.spec.selector, labels))
    };
    let mut counted = Vec::new();
    for vmi in owned {
        match is_selected(vmi) {
            true => counted.push(vmi),
            false => actions.push(Action::Release(name(vmi))),
        }
    }
    let orphans = instances.iter().copied().filter(|vmi| owner(vmi).is_none() && is_selected(vmi));
    for vmi in orphans.filter(|vmi| vmi.metadata.deletion_timestamp.is_none()) {
        actions.push(Action::Adopt(name(vmi)));
        counted.push(vmi);
    }
    // Ended instances make room for others.
    let (ended, mut active): (Vec<_>, Vec<_>) =
        counted.into_iter().filter(|vmi| vmi.metadata.deletion_timestamp.is_none()).partition(|vmi| has_ended(vmi));
    if is_deleted {
        actions.clear();
    } else {
        actions.extend(ended.into_iter().map(|vmi| Action::Delete(name(vmi))));
        if !set.spec.paused {
            scale(set, instances, &mut active, &mut actions);
        }
    }
    Plan { status: status(set, &active, now), actions }
}

/// The status of a set whose plan failed at one of its actions.
pub(super) fn failed(status: &ReplicaSetStatus, reason: &str, message: &str, now: Timestamp) -> ReplicaSetStatus {
    let mut status = status.clone();
    conditions::set(&mut status.conditions, FAILURE, "True", reason, message, now);
    status
}

fn scale(
    set: &ReplicaSet,
    instances: &[&VirtualMachineInstance],
    active: &mut [&VirtualMachineInstance],
    actions: &mut Vec<Action>,
) {
    let expected = usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or(usize::MAX);
    if active.len() > expected {
        // Those that serve longest stay.
        active.sort_by_key(|vmi| {
            (is_ready(vmi), std::cmp::Reverse(vmi.metadata.creation_timestamp.as_ref().map(|time| time.0)))
        });
        let surplus = active.iter().take((active.len() - expected).min(BURST));
        actions.extend(surplus.map(|vmi| Action::Delete(name(vmi))));
    } else {
        let taken = |candidate: &String| instances.iter().any(|vmi| vmi.metadata.name.as_ref() == Some(candidate));
        let free = (0_u64..).map(|number| instance_name(set, number)).filter(|candidate| !taken(candidate));
        actions.extend(free.take((expected - active.len()).min(BURST)).map(Action::Create));
    }
}

fn status(set: &ReplicaSet, active: &[&VirtualMachineInstance], now: Timestamp) -> ReplicaSetStatus {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let mut status = set.status.clone().unwrap_or_default();
    status.replicas = count(active.len());
    status.ready_replicas = count(active.iter().filter(|vmi| is_ready(vmi)).count());
    status.label_selector = selector::text(&set.spec.selector);
    match set.spec.paused {
        true => conditions::set(&mut status.conditions, PAUSED, "True", "Paused", "the set is paused", now),
        false => conditions::remove(&mut status.conditions, PAUSED),
    }
    if active.len() == usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or(usize::MAX) {
        conditions::remove(&mut status.conditions, FAILURE);
    }
    status
}

/// The set's name and five digits, as KubeVirt's names look.
fn instance_name(set: &ReplicaSet, number: u64) -> String {
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    let digits = crate::hex(&Sha256::digest(format!("{uid}/{number}"))[..3]);
    format!("{}{}", set.metadata.name.as_deref().unwrap_or_default(), &digits[..5])
}

fn name(vmi: &VirtualMachineInstance) -> String {
    vmi.metadata.name.clone().unwrap_or_default()
}

/// UID of the object that controls an instance.
fn owner(vmi: &VirtualMachineInstance) -> Option<&str> {
    let owners = vmi.metadata.owner_references.iter().flatten();
    let mut controller = owners.filter(|owner| owner.controller == Some(true));
    controller.next().map(|owner| owner.uid.as_str())
}

fn has_ended(vmi: &VirtualMachineInstance) -> bool {
    vmi.status.as_ref().and_then(|status| status.phase).is_some_and(Phase::is_final)
}

fn is_ready(vmi: &VirtualMachineInstance) -> bool {
    vmi.status.as_ref().is_some_and(|status| conditions::is_true(&status.conditions, "Ready"))
}
