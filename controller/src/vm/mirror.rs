//! Conditions of a machine: those of its instance, and those that only a machine has.

use jiff::Timestamp;

use crate::conditions::{put, set};
use crate::objects::{Condition, VirtualMachineInstance};

/// The last step failed.
pub(super) const FAILURE: &str = "Failure";
/// The instance runs another spec than the machine has.
pub(super) const RESTART_REQUIRED: &str = "RestartRequired";
/// An administrator has to act before the next start.
pub(super) const MANUAL_RECOVERY: &str = "ManualRecoveryRequired";
const READY: &str = "Ready";
/// What an instance that failed leaves to be read while the next start waits.
const REASON_OF_FAILURE: &str = "Synchronized";
/// Not taken over from an instance: the machine decides about them.
const OWN: [&str; 3] = [FAILURE, RESTART_REQUIRED, MANUAL_RECOVERY];

/// Takes over the conditions of the instance.
pub(super) fn mirror(
    conditions: &mut Vec<Condition>,
    vmi: Option<&VirtualMachineInstance>,
    waits_after_failure: bool,
    now: Timestamp,
) {
    let Some(vmi) = vmi else {
        let stays =
            |kind: &str| kind == READY || OWN.contains(&kind) || (waits_after_failure && kind == REASON_OF_FAILURE);
        conditions.retain(|condition| stays(&condition.kind));
        return set(conditions, READY, "False", "VMINotExists", "VMI does not exist", now);
    };
    let of_instance = vmi.status.iter().flat_map(|status| &status.conditions);
    let of_instance: Vec<_> = of_instance.filter(|condition| !OWN.contains(&condition.kind.as_str())).collect();
    let is_of_instance = |kind: &str| of_instance.iter().any(|condition| condition.kind == kind);
    conditions.retain(|condition| {
        OWN.contains(&condition.kind.as_str()) || condition.kind == READY || is_of_instance(&condition.kind)
    });
    for condition in &of_instance {
        put(conditions, Condition::clone(condition));
    }
    if !is_of_instance(READY) {
        set(conditions, READY, "False", "VMIConditionMissing", "VMI is missing the Ready condition", now);
    }
}
