//! Back-off of starts that fail before the guest ran: kept in `status.startFailure`, with the delays of the local runner.

use std::time::Duration;

use api::run_strategy::{FailedStarts, NextStep, RunOutcome, RunStrategy, decide};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sha2::{Digest as _, Sha256};

use super::object::StartFailure;
use crate::objects::{Phase, VirtualMachineInstance};

/// Whether the guest ever ran.
pub(super) fn ran(vmi: &VirtualMachineInstance) -> bool {
    let transitions = vmi.status.iter().flat_map(|status| &status.phase_transition_timestamps);
    transitions.into_iter().any(|transition| transition.phase == Phase::Running)
}

/// The record after an instance was seen: one more for an instance that failed early and was not counted yet, none once a
/// guest ran or where the strategy starts nothing by itself.
pub(super) fn after(
    earlier: Option<StartFailure>,
    strategy: Option<RunStrategy>,
    vmi: Option<&VirtualMachineInstance>,
    now: Timestamp,
) -> Option<StartFailure> {
    let starts_by_itself = strategy.is_some_and(RunStrategy::starts_by_itself);
    if !starts_by_itself || vmi.is_some_and(ran) {
        return None;
    }
    let phase = |vmi: &&VirtualMachineInstance| vmi.status.as_ref().and_then(|status| status.phase);
    let Some(vmi) = vmi.filter(|vmi| phase(vmi).is_some_and(Phase::is_final)) else { return earlier };
    let uid = vmi.metadata.uid.clone().unwrap_or_default();
    let count = match earlier {
        Some(earlier) if earlier.last_failed_vmi_uid == uid => return Some(earlier),
        Some(earlier) => earlier.consecutive_fail_count,
        None => 0,
    };
    let history = FailedStarts(count);
    let (next, history) = decide(RunStrategy::Always, RunOutcome::Failed, false, history, spread(&uid));
    let delay = match next {
        NextStep::Again { after } => after,
        NextStep::Done(_) => Duration::ZERO,
    };
    // The API server keeps whole seconds.
    let delay = jiff::SignedDuration::from_secs(i64::try_from(delay.as_secs()).unwrap_or(i64::MAX));
    Some(StartFailure {
        consecutive_fail_count: history.0,
        last_failed_vmi_uid: uid,
        retry_after_timestamp: now.checked_add(delay).ok().map(whole_seconds),
    })
}

/// How long the next start has to wait.
pub(super) fn time_left(failure: Option<&StartFailure>, now: Timestamp) -> Option<Duration> {
    let retry_after = failure?.retry_after_timestamp.as_ref()?;
    let left = Duration::try_from(now.duration_until(retry_after.0)).ok()?;
    (!left.is_zero()).then_some(left)
}

fn whole_seconds(time: Timestamp) -> Time {
    Time(time.round(jiff::Unit::Second).unwrap_or(time))
}

/// A fraction that differs from instance to instance.
fn spread(uid: &str) -> f32 {
    f32::from(Sha256::digest(uid)[0]) / f32::from(u8::MAX)
}
