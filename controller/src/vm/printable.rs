//! `status.printableStatus`: the state of a machine in one word, the first that applies in KubeVirt's order.

use api::run_strategy::RunStrategy;

use super::object::MachineStatus;
use crate::objects::{Condition, Phase, VirtualMachineInstance};

/// What the word is made from.
pub(super) struct Facts<'a> {
    /// Whether the machine is being deleted.
    pub(super) is_deleted: bool,
    pub(super) strategy: Option<RunStrategy>,
    /// Its status as it will be written.
    pub(super) status: &'a MachineStatus,
    pub(super) vmi: Option<&'a VirtualMachineInstance>,
    /// Whether this plan deletes the instance.
    pub(super) stops: bool,
}

/// Whether a word applies.
type Applies = fn(&Facts<'_>) -> bool;

/// Words and the condition under which each applies; the first wins.
const TABLE: [(&str, Applies); 13] = [
    ("Terminating", |facts| facts.is_deleted),
    ("Stopping", |facts| facts.vmi.is_some() && !facts.has_ended() && (facts.stops || facts.is_instance_deleted())),
    ("Paused", |facts| facts.phase() == Some(Phase::Running) && facts.has("Paused", "True", None)),
    ("Running", |facts| facts.phase() == Some(Phase::Running)),
    ("ErrorPvcNotFound", |facts| facts.has("Synchronized", "False", Some("FailedPvcNotFound"))),
    ("ErrorUnschedulable", |facts| facts.has("PodScheduled", "False", Some("Unschedulable"))),
    ("Provisioning", |facts| facts.has("Synchronized", "False", Some("ClaimNotFilled"))),
    ("ErrImagePull", |facts| facts.has("Synchronized", "False", Some("ErrImagePull"))),
    ("ImagePullBackOff", |facts| facts.has("Synchronized", "False", Some("ImagePullBackOff"))),
    ("Starting", |facts| {
        facts.vmi.is_some()
            && matches!(facts.phase(), None | Some(Phase::Pending | Phase::Scheduling | Phase::Scheduled))
    }),
    ("CrashLoopBackOff", |facts| {
        let has_failed = facts.status.start_failure.as_ref().is_some_and(|failure| failure.consecutive_fail_count > 0);
        has_failed && facts.strategy.is_some_and(RunStrategy::starts_by_itself)
    }),
    ("Stopped", |facts| facts.vmi.is_none() || facts.has_ended()),
    ("Unknown", |_| true),
];

/// The word.
pub(super) fn status(facts: &Facts<'_>) -> String {
    let found = TABLE.iter().find(|(_, applies)| applies(facts));
    found.map_or("Unknown", |(word, _)| word).to_owned()
}

impl Facts<'_> {
    fn phase(&self) -> Option<Phase> {
        self.vmi?.status.as_ref()?.phase
    }

    fn has_ended(&self) -> bool {
        self.phase().is_some_and(Phase::is_final)
    }

    fn is_instance_deleted(&self) -> bool {
        self.vmi.is_some_and(|vmi| vmi.metadata.deletion_timestamp.is_some())
    }

    /// Whether the instance has a condition of this type and status, and of this reason where one is given.
    fn has(&self, kind: &str, status: &str, reason: Option<&str>) -> bool {
        let conditions = self.vmi.and_then(|vmi| vmi.status.as_ref()).into_iter().flat_map(|all| &all.conditions);
        let is_it = |condition: &Condition| {
            condition.kind == kind
                && condition.status == status
                && reason.is_none_or(|reason| condition.reason.as_deref() == Some(reason))
        };
        conditions.into_iter().any(is_it)
    }
}
