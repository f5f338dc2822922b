//! What is to be done for a migration, decided without I/O from the object, its instance, its target pod and the time.
//!
//! Flow: no target pod → limits, then create one; pod waits → say so, until a time-out; the launcher in it waits for the
//! guest → `Scheduled`, then `Failed`: no guest is moved yet.
//! Guarantees: an instance has at most one migration with a target pod; a final phase never changes; a migration that has
//! ended leaves no target pod.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::object::{Migration, MigrationPhase, MigrationStatus, MigrationTransition};
use crate::conditions;
use crate::config::MigrationLimits;
use crate::objects::{Phase, VirtualMachineInstance};
use crate::vmi::pod_state::{self, Obstacle, PodState};

/// Keeps a migration until its target pod is gone.
pub(super) const FINALIZER: &str = "kubevirt.io/migrationJobFinalize";
/// Label by which clients find the migrations of an instance.
pub(super) const INSTANCE_LABEL: &str = "kubevirt.io/vmi-name";
/// Condition: a ResourceQuota leaves no room for the target pod.
pub(super) const REJECTED_BY_QUOTA: &str = "migrationRejectedByResourceQuota";
/// Condition, while it is `False`: no node takes the target pod.
const POD_SCHEDULED: &str = "PodScheduled";
const ABORT_REQUESTED: &str = "migrationAbortRequested";
/// Annotations: seconds that a target pod may be unschedulable, or pending for any reason.
const UNSCHEDULABLE_SECONDS: &str = "kubevirt.io/migrationUnschedulablePodTimeoutSeconds";
const PENDING_SECONDS: &str = "kubevirt.io/migrationPendingPodTimeoutSeconds";
const UNSCHEDULABLE: Duration = Duration::from_secs(300);
const PENDING: Duration = Duration::from_secs(900);
/// Finished migrations of an instance that are kept.
const KEPT: usize = 5;
/// How often a migration looks again at what its caches do not tell.
pub(super) const LIMIT_PERIOD: Duration = Duration::from_secs(5);
/// Why a migration whose target is ready fails.
pub(crate) const NOT_MOVED: &str = "this release moves no running guest: the target pod was ready to receive it";

/// What a decision is made from.
#[derive(Debug)]
pub(super) struct Observed<'a> {
    pub(super) migration: &'a Migration,
    /// The instance of its name.
    pub(super) instance: Option<&'a VirtualMachineInstance>,
    /// All migrations of the cluster.
    pub(super) all: &'a [Arc<Migration>],
    /// Its target pod.
    pub(super) target: Option<&'a Pod>,
    /// The pod that runs the guest.
    pub(super) source: Option<&'a Pod>,
    /// Whether the launcher in the target pod waits for the guest; `None` where no agent reports on it.
    pub(super) waits_for_guest: Option<bool>,
    /// Why the instance cannot be moved, by its specification and its claims.
    pub(super) obstacle: Option<String>,
    pub(super) limits: MigrationLimits,
    pub(super) now: Timestamp,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// Whether the object is to carry [`FINALIZER`].
    pub(super) finalizer: bool,
    /// The status to write before the actions.
    pub(super) status: MigrationStatus,
    /// What to do, in this order.
    pub(super) actions: Vec<Action>,
    /// A warning for people, if the status changes: reason and text.
    pub(super) warning: Option<(&'static str, String)>,
    /// When to look again although nothing changed.
    pub(super) retry_after: Option<Duration>,
}

/// A step on other objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Creates the target pod, if it does not exist.
    CreateTarget,
    /// Deletes the target pod.
    DeleteTarget,
    /// Deletes a finished migration, by its name.
    DeleteMigration(String),
}

/// Decides for one migration.
pub(super) fn plan(observed: &Observed<'_>) -> Plan {
    let status = observed.migration.status.clone().unwrap_or_default();
    let mut planner = Planner { observed, status, actions: Vec::new(), warning: None, retry_after: None };
    let is_deleted = observed.migration.metadata.deletion_timestamp.is_some();
    if !observed.migration.is_final() {
        match is_deleted {
            true => planner.cancel(),
            false => planner.run(),
        }
    }
    planner.finish()
}

struct Planner<'a> {
    observed: &'a Observed<'a>,
    status: MigrationStatus,
    actions: Vec<Action>,
    warning: Option<(&'static str, String)>,
    retry_after: Option<Duration>,
}

impl Planner<'_> {
    fn run(&mut self) {
        if self.status.phase.is_none() {
            self.enter(MigrationPhase::Pending);
        }
        let name = &self.observed.migration.spec.vmi_name;
        let Some(vmi) = self.observed.instance else { return self.fail(&format!("VMI {name} does not exist")) };
        let phase = vmi.status.as_ref().and_then(|status| status.phase);
        if vmi.metadata.deletion_timestamp.is_some() || phase.is_some_and(Phase::is_final) {
            return self.fail(&format!("VMI {name} has ended"));
        }
        if let Some(other) = self.earlier() {
            return self.fail(&format!("migration {other} of VMI {name} is in progress"));
        }
        if let Some(obstacle) = &self.observed.obstacle {
            return self.fail(obstacle);
        }
        match self.observed.target {
            Some(pod) => self.follow(pod),
            None if self.status.phase > Some(MigrationPhase::Pending) => self.fail("the target pod was removed"),
            None if phase == Some(Phase::Running) && self.observed.source.is_some() => self.create(),
            None => self.retry_after = Some(LIMIT_PERIOD),
        }
    }

    /// An older migration of the instance that has not ended.
    fn earlier(&self) -> Option<&str> {
        let order = |migration: &Migration| {
            (migration.metadata.creation_timestamp.as_ref().map(|time| time.0), migration.metadata.name.clone())
        };
        let own = order(self.observed.migration);
        let mut others = self.of_instance().filter(|other| !other.is_final() && order(other) < own);
        others.next()?.metadata.name.as_deref()
    }

    /// The other migrations of the instance.
    fn of_instance(&self) -> impl Iterator<Item = &Migration> {
        let own = self.observed.migration;
        self.observed.all.iter().map(|other| &**other).filter(|other| {
            other.spec.vmi_name == own.spec.vmi_name
                && other.metadata.namespace == own.metadata.namespace
                && other.metadata.uid != own.metadata.uid
        })
    }

    /// Creates the target pod, unless as many migrations as may run have theirs.
    fn create(&mut self) {
        let limits = self.observed.limits;
        let source = node_of(self.observed.source);
        let is_active = |other: &&Arc<Migration>| {
            let phase = other.status.as_ref().and_then(|status| status.phase);
            matches!(phase, Some(MigrationPhase::Scheduling | MigrationPhase::Scheduled))
        };
        let active: Vec<_> = self.observed.all.iter().filter(is_active).collect();
        let from_node = active.iter().filter(|other| {
            other
                .status
                .as_ref()
                .and_then(|status| status.migration_state.as_ref())
                .is_some_and(|state| state.source_node == source)
        });
        if active.len() >= limits.per_cluster || from_node.count() >= limits.outbound_per_node {
            self.retry_after = Some(LIMIT_PERIOD);
            return;
        }
        self.actions.push(Action::CreateTarget);
        self.retry_after = Some(LIMIT_PERIOD);
    }

    fn follow(&mut self, pod: &Pod) {
        conditions::remove(&mut self.status.conditions, REJECTED_BY_QUOTA);
        self.enter(MigrationPhase::Scheduling);
        self.describe(pod);
        match pod_state::state(pod) {
            PodState::Ended { message, .. } => self.fail(&format!("the target pod ended: {message}")),
            _ if pod.metadata.deletion_timestamp.is_some() => self.fail("the target pod was deleted"),
            PodState::Waiting(obstacle) => self.wait(pod, obstacle),
            PodState::Running if self.observed.waits_for_guest == Some(false) => self.retry_after = Some(LIMIT_PERIOD),
            PodState::Running => {
                conditions::remove(&mut self.status.conditions, POD_SCHEDULED);
                self.enter(MigrationPhase::Scheduled);
                self.fail(NOT_MOVED);
            }
        }
    }

    fn describe(&mut self, pod: &Pod) {
        let state = self.status.migration_state.get_or_insert_default();
        state.migration_uid = self.observed.migration.metadata.uid.clone().unwrap_or_default();
        state.target_pod = pod.metadata.name.clone().unwrap_or_default();
        state.target_node = node_of(Some(pod));
        state.start_timestamp.get_or_insert(Time(self.observed.now));
        if let Some(source) = self.observed.source {
            state.source_pod = source.metadata.name.clone().unwrap_or_default();
            state.source_node = node_of(Some(source));
        }
    }

    fn wait(&mut self, pod: &Pod, obstacle: Option<Obstacle>) {
        let since = pod.metadata.creation_timestamp.as_ref().map_or(self.observed.now, |time| time.0);
        let waited: Duration = self.observed.now.duration_since(since).try_into().unwrap_or_default();
        let unschedulable = obstacle.filter(|obstacle| obstacle.condition == "PodScheduled");
        let limit = match unschedulable {
            Some(_) => self.seconds(UNSCHEDULABLE_SECONDS).unwrap_or(UNSCHEDULABLE),
            None => self.seconds(PENDING_SECONDS).unwrap_or(PENDING),
        };
        if unschedulable.is_none() {
            conditions::remove(&mut self.status.conditions, POD_SCHEDULED);
        }
        if let Some(obstacle) = unschedulable {
            let (reason, message) = (&obstacle.reason, &obstacle.message);
            conditions::set(&mut self.status.conditions, POD_SCHEDULED, "False", reason, message, self.observed.now);
            let migration = self.observed.migration;
            let (namespace, vmi) = (migration.metadata.namespace.as_deref(), &migration.spec.vmi_name);
            let text = format!(
                "Migration target pod for VMI [{}/{vmi}] is currently unschedulable: {}",
                namespace.unwrap_or_default(),
                obstacle.message
            );
            self.warning = Some(("migrationTargetPodUnschedulable", text));
        }
        if waited >= limit {
            self.warning = None;
            return self.fail(&format!("the target pod was pending for {} seconds", waited.as_secs()));
        }
        // A change of the pod leads to a pass, which may come before this cache shows it.
        self.retry_after = Some(limit.saturating_sub(waited).min(LIMIT_PERIOD));
    }

    /// A time-out of the migration's annotations.
    fn seconds(&self, annotation: &str) -> Option<Duration> {
        let annotations = self.observed.migration.metadata.annotations.as_ref()?;
        annotations.get(annotation)?.parse().ok().map(Duration::from_secs)
    }

    /// The migration was deleted before it ended.
    fn cancel(&mut self) {
        let now = self.observed.now;
        conditions::set(&mut self.status.conditions, ABORT_REQUESTED, "True", "", "the migration was deleted", now);
        if let Some(pod) = self.observed.target {
            self.describe(pod);
        }
        self.status.migration_state.get_or_insert_default().abort_requested = true;
        self.fail("the migration was cancelled");
    }

    fn fail(&mut self, reason: &str) {
        self.enter(MigrationPhase::Failed);
        let state = self.status.migration_state.get_or_insert_default();
        state.migration_uid = self.observed.migration.metadata.uid.clone().unwrap_or_default();
        state.end_timestamp = Some(Time(self.observed.now));
        (state.completed, state.failed) = (true, true);
        state.failure_reason = reason.to_owned();
        self.warning = Some(("FailedMigration", reason.to_owned()));
        let mut finished: Vec<_> = self.of_instance().filter(|other| other.is_final()).collect();
        finished.sort_by_key(|other| other.metadata.creation_timestamp.as_ref().map(|time| time.0));
        let surplus = (finished.len() + 1).saturating_sub(KEPT);
        let names: Vec<_> = finished.iter().take(surplus).filter_map(|other| other.metadata.name.clone()).collect();
        self.actions.extend(names.into_iter().map(Action::DeleteMigration));
    }

    fn enter(&mut self, phase: MigrationPhase) {
        if self.status.phase.is_none_or(|earlier| earlier < phase) {
            self.status.phase = Some(phase);
            let phase_transition_timestamp = Time(self.observed.now);
            self.status.phase_transition_timestamps.push(MigrationTransition { phase, phase_transition_timestamp });
        }
    }

    fn finish(mut self) -> Plan {
        let is_final = self.status.phase.is_some_and(MigrationPhase::is_final);
        let is_alive = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none();
        if is_final && self.observed.target.as_ref().is_some_and(is_alive) {
            self.actions.push(Action::DeleteTarget);
        }
        let finalizer = !is_final || self.observed.target.as_ref().is_some_and(is_alive);
        let Self { status, actions, warning, retry_after, .. } = self;
        Plan { finalizer, status, actions, warning, retry_after }
    }
}

fn node_of(pod: Option<&Pod>) -> String {
    pod.and_then(|pod| pod.spec.as_ref()?.node_name.clone()).unwrap_or_default()
}
