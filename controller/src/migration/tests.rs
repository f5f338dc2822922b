//! Decisions, target pods and admission of migrations.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::admission::refusal;
use super::object::{Migration, MigrationPhase};
use super::plan::{Action, NOT_MOVED, Observed, Plan, plan};
use super::target;
use crate::config::{ClusterConfig, MigrationLimits};
use crate::objects::VirtualMachineInstance;
use crate::vmi::launch;

const NOW: &str = "2026-11-30T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn migration(name: &str, status: Value) -> Migration {
    serde_json::from_value(json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceMigration",
        "metadata": {"namespace": "vms", "name": name, "uid": format!("uid-{name}"), "creationTimestamp": "2026-11-30T11:59:00Z"},
        "spec": {"vmiName": "web", "addedNodeSelector": {"disk": "fast", "kubernetes.io/arch": "arm64"}}, "status": status,
    }))
    .unwrap()
}

fn instance(status: Value) -> VirtualMachineInstance {
    serde_json::from_value(json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"namespace": "vms", "name": "web", "uid": "vmi"},
        "spec": {"domain": {"memory": {"guest": "128Mi"}, "devices": {"interfaces": [{"name": "default", "masquerade": {}}]}},
            "networks": [{"name": "default", "pod": {}}]},
        "status": status,
    }))
    .unwrap()
}

fn pod(name: &str, node: &str, status: Value) -> Pod {
    let metadata = json!({"name": name, "creationTimestamp": "2026-11-30T11:58:00Z"});
    serde_json::from_value(
        json!({"metadata": metadata, "spec": {"nodeName": node, "containers": []}, "status": status}),
    )
    .unwrap()
}

fn running_pod() -> Value {
    json!({"phase": "Running", "containerStatuses": [{"name": "compute", "image": "", "imageID": "", "ready": true,
        "restartCount": 0, "state": {"running": {}}}]})
}

fn unschedulable() -> Value {
    json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}]})
}

struct Case {
    migration: Migration,
    instance: Option<VirtualMachineInstance>,
    others: Vec<Migration>,
    target: Option<Pod>,
    waits_for_guest: Option<bool>,
    obstacle: Option<String>,
    limits: MigrationLimits,
    now: Timestamp,
}

impl Case {
    fn new(status: Value, target: Option<Pod>) -> Self {
        Self {
            migration: migration("move", status),
            instance: Some(instance(json!({"phase": "Running", "nodeName": "node1"}))),
            others: Vec::new(),
            target,
            waits_for_guest: Some(false),
            obstacle: None,
            limits: MigrationLimits::default(),
            now: now(),
        }
    }

    fn plan(&self) -> Plan {
        let source = pod("source", "node1", running_pod());
        let all: Vec<_> = self.others.iter().chain([&self.migration]).cloned().map(Arc::new).collect();
        plan(&Observed {
            migration: &self.migration,
            instance: self.instance.as_ref(),
            all: &all,
            target: self.target.as_ref(),
            source: Some(&source),
            waits_for_guest: self.waits_for_guest,
            obstacle: self.obstacle.clone(),
            limits: self.limits,
            now: self.now,
        })
    }

    /// Why it fails.
    fn failure(&self) -> String {
        let plan = self.plan();
        assert_eq!(plan.status.phase, Some(MigrationPhase::Failed));
        plan.status.migration_state.unwrap().failure_reason
    }
}

// spec: MIG-1
#[test]
fn a_migration_creates_its_target_pod_and_fails_only_once_that_is_ready() {
    let plan = Case::new(Value::Null, None).plan();
    assert_eq!((plan.status.phase, plan.actions), (Some(MigrationPhase::Pending), vec![Action::CreateTarget]));
    assert!(plan.finalizer);
    let mut case = Case::new(json!({"phase": "Pending"}), Some(pod("target", "node2", running_pod())));
    let plan = case.plan();
    assert_eq!((plan.status.phase, plan.actions.len()), (Some(MigrationPhase::Scheduling), 0));
    case.waits_for_guest = Some(true);
    let plan = case.plan();
    let phases: Vec<_> = plan.status.phase_transition_timestamps.iter().map(|transition| transition.phase).collect();
    assert_eq!(phases, [MigrationPhase::Scheduling, MigrationPhase::Scheduled, MigrationPhase::Failed]);
    assert_eq!((plan.actions, plan.finalizer), (vec![Action::DeleteTarget], true));
    let state = plan.status.migration_state.unwrap();
    assert_eq!((&*state.source_node, &*state.target_node, &*state.failure_reason), ("node1", "node2", NOT_MOVED));
    assert!(state.completed && state.failed && state.end_timestamp.is_some());
}

// spec: MIG-1
#[test]
fn a_migration_that_has_ended_waits_for_its_pod_alone() {
    let mut target = pod("target", "node2", running_pod());
    let mut case = Case::new(json!({"phase": "Failed"}), Some(target.clone()));
    let plan = case.plan();
    assert_eq!((plan.actions, plan.finalizer), (vec![Action::DeleteTarget], true));
    target.metadata.deletion_timestamp = serde_json::from_value(json!(NOW)).unwrap();
    case.target = Some(target);
    let plan = case.plan();
    assert_eq!((plan.actions, plan.finalizer, plan.status.phase), (vec![], false, Some(MigrationPhase::Failed)));
}

// spec: MIG-2
#[test]
fn a_target_pod_that_stays_pending_fails_after_its_time_out() {
    let mut case = Case::new(json!({"phase": "Scheduling"}), Some(pod("target", "", unschedulable())));
    let plan = case.plan();
    assert_eq!(plan.status.phase, Some(MigrationPhase::Scheduling));
    assert_eq!(plan.warning.as_ref().unwrap().0, "migrationTargetPodUnschedulable");
    assert_eq!((&*plan.status.conditions[0].kind, &*plan.status.conditions[0].status), ("PodScheduled", "False"));
    // The next pass finds nothing new: no status is written again and nothing is told twice.
    case.migration.status = Some(plan.status.clone());
    case.now = now() + jiff::SignedDuration::from_secs(1);
    assert_eq!(case.plan().status, plan.status);
    case.now = now();
    let seconds = [("kubevirt.io/migrationUnschedulablePodTimeoutSeconds".to_owned(), "120".to_owned())];
    case.migration.metadata.annotations = Some(seconds.into());
    assert_eq!(case.failure(), "the target pod was pending for 120 seconds");
    case.target = Some(pod("target", "node2", json!({"phase": "Pending"})));
    let plan = case.plan();
    assert_eq!((plan.status.phase, plan.status.conditions.len()), (Some(MigrationPhase::Scheduling), 0));
    let seconds = [("kubevirt.io/migrationPendingPodTimeoutSeconds".to_owned(), "119".to_owned())];
    case.migration.metadata.annotations = Some(seconds.into());
    assert_eq!(case.failure(), "the target pod was pending for 120 seconds");
}

// spec: MIG-3
#[test]
fn limits_and_an_older_migration_hold_the_next_one_back() {
    let mut case = Case::new(Value::Null, None);
    let mut other = migration("other", json!({"phase": "Scheduling", "migrationState": {"sourceNode": "node1"}}));
    other.spec.vmi_name = "db".to_owned();
    case.others = vec![other.clone()];
    assert_eq!(case.plan().actions, [Action::CreateTarget]);
    case.limits.outbound_per_node = 1;
    let plan = case.plan();
    assert_eq!((plan.status.phase, plan.actions.len()), (Some(MigrationPhase::Pending), 0));
    assert!(plan.retry_after.is_some());
    case.limits = MigrationLimits { per_cluster: 1, ..MigrationLimits::default() };
    assert!(case.plan().actions.is_empty());
    case.others = vec![migration("earlier", json!({"phase": "Pending"}))];
    assert_eq!(case.failure(), "migration earlier of VMI web is in progress");
}

// spec: MIG-3
#[test]
fn five_finished_migrations_of_an_instance_are_kept() {
    let mut case = Case::new(Value::Null, None);
    case.instance = None;
    case.others = (0..6).map(|number| migration(&format!("old-{number}"), json!({"phase": "Failed"}))).collect();
    for (minute, other) in case.others.iter_mut().enumerate() {
        let time = format!("2026-11-30T10:0{minute}:00Z");
        other.metadata.creation_timestamp = serde_json::from_value(json!(time)).unwrap();
    }
    let deleted = ["old-0", "old-1"].map(|name| Action::DeleteMigration(name.to_owned()));
    assert_eq!(case.plan().actions, deleted);
    assert_eq!(case.failure(), "VMI web does not exist");
}

// spec: MIG-4
#[test]
fn a_deleted_migration_is_cancelled_and_its_pod_removed() {
    let mut case = Case::new(json!({"phase": "Scheduling"}), Some(pod("target", "node2", running_pod())));
    case.migration.metadata.deletion_timestamp = serde_json::from_value(json!(NOW)).unwrap();
    let plan = case.plan();
    assert_eq!((plan.actions, plan.finalizer), (vec![Action::DeleteTarget], true));
    assert_eq!(plan.status.conditions[0].kind, "migrationAbortRequested");
    let state = plan.status.migration_state.unwrap();
    assert!(state.abort_requested && state.failed && state.failure_reason == "the migration was cancelled");
    // The next pass lets it go.
    case.target = None;
    case.migration.status = Some(serde_json::from_value(json!({"phase": "Failed"})).unwrap());
    assert!(!case.plan().finalizer);
}

// spec: MIG-1
#[test]
fn what_prevents_a_move_fails_the_migration_before_its_pod() {
    let mut case = Case::new(Value::Null, None);
    case.obstacle = Some("cannot migrate VMI: PVC data is not shared".to_owned());
    assert_eq!(case.failure(), "cannot migrate VMI: PVC data is not shared");
    case.instance = Some(instance(json!({"phase": "Succeeded"})));
    assert_eq!(case.failure(), "VMI web has ended");
    let case = Case::new(json!({"phase": "Scheduling"}), None);
    assert_eq!(case.failure(), "the target pod was removed");
}

// spec: MIG-5
#[test]
fn the_target_pod_waits_for_the_guest_on_another_node() {
    let vmi = instance(json!({"phase": "Running"}));
    let config = ClusterConfig { use_emulation: true, ..ClusterConfig::new("launcher:1".to_owned()) };
    let launch = launch::read(&vmi, &config).launch.unwrap();
    let migration = migration("move", Value::Null);
    let pod = target::pod(&migration, &vmi, &launch, &config).unwrap();
    assert_eq!(pod.metadata.name.as_deref(), Some(&*target::name(&migration)));
    assert_eq!(pod.metadata.labels.as_ref().unwrap()["kubevirt.io/migrationJobUID"], "uid-move");
    let spec = serde_json::to_value(pod.spec.unwrap()).unwrap();
    let rule = &spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0];
    let labels = json!({"matchLabels": {"kubevirt.io/created-by": "vmi"}});
    assert_eq!((&rule["labelSelector"], &rule["topologyKey"]), (&labels, &json!("kubernetes.io/hostname")));
    // The migration's labels narrow the choice and never widen it.
    assert_eq!(
        (&spec["nodeSelector"]["disk"], &spec["nodeSelector"]["kubernetes.io/arch"]),
        (&json!("fast"), &json!("amd64"))
    );
    let args = spec["containers"][0]["args"].as_array().unwrap();
    assert_eq!(args.last(), Some(&json!("--incoming")));
}

// spec: MIG-6
#[test]
fn admission_refuses_a_migration_with_kubevirts_sentences() {
    let wanted = migration("move", Value::Null);
    let running = |condition: Value| instance(json!({"phase": "Running", "conditions": [condition]}));
    let not_moved = running(json!({"type": "LiveMigratable", "status": "Unknown", "reason": "NotMigratable"}));
    assert_eq!(refusal(&wanted, Some(&not_moved), &[migration("old", json!({"phase": "Failed"}))]), None);
    let bridge = running(
        json!({"type": "LiveMigratable", "status": "False", "reason": "InterfaceNotLiveMigratable", "message": "why"}),
    );
    let table = [
        (None, vec![], "the VMI \"web\" does not exist under the cluster"),
        (Some(instance(json!({"phase": "Failed"}))), vec![], "Cannot migrate VMI in finalized state."),
        (Some(bridge), vec![], "Cannot migrate VMI, Reason: InterfaceNotLiveMigratable, Message: why"),
        (
            Some(not_moved),
            vec![migration("first", json!({"phase": "Scheduling"}))],
            "in-flight migration detected. Active migration job (uid-first) is currently already in progress for VMI web.",
        ),
    ];
    for (vmi, others, sentence) in table {
        assert_eq!(refusal(&wanted, vmi.as_ref(), &others).as_deref(), Some(sentence));
    }
    let mut unknown = wanted.clone();
    unknown.spec.other = [("sendTo".to_owned(), json!({}))].into_iter().collect();
    assert_eq!(refusal(&unknown, None, &[]).as_deref(), Some("spec.sendTo: not supported"));
}
