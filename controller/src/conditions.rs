//! Conditions of a status: each type once, with the time at which it last changed.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::objects::Condition;

/// Sets a condition; its time changes only with its status. Empty texts are left out.
pub(crate) fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let earlier = conditions.iter().find(|condition| condition.kind == kind && condition.status == status);
    let since = earlier.and_then(|condition| condition.last_transition_time.clone());
    put(
        conditions,
        Condition {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: text(reason),
            message: text(message),
            last_transition_time: Some(since.unwrap_or(Time(now))),
        },
    );
}

/// Puts a condition in the place of the one of its type.
pub(crate) fn put(conditions: &mut Vec<Condition>, condition: Condition) {
    match conditions.iter_mut().find(|earlier| earlier.kind == condition.kind) {
        Some(earlier) => *earlier = condition,
        None => conditions.push(condition),
    }
}

/// Whether there is a condition of this type that is true.
pub(crate) fn is_true(conditions: &[Condition], kind: &str) -> bool {
    conditions.iter().any(|condition| condition.kind == kind && condition.status == "True")
}

/// Removes a condition.
pub(crate) fn remove(conditions: &mut Vec<Condition>, kind: &str) {
    conditions.retain(|condition| condition.kind != kind);
}
