//! Decisions for sets: how many instances are made and deleted, which ones, what the status says.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::object::ReplicaSet;
use super::plan::{Action, Plan, failed, plan};
use super::reading;
use crate::config::ClusterConfig;
use crate::objects::VirtualMachineInstance;

fn now() -> Timestamp {
    "2026-11-30T12:00:00Z".parse().unwrap()
}

fn set(replicas: u32) -> ReplicaSet {
    serde_json::from_value(json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceReplicaSet",
        "metadata": {"namespace": "vms", "name": "web", "uid": "set"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web", "tier": "front"}},
            "spec": {"domain": {"memory": {"guest": "128Mi"}, "devices": {}}},
        }},
    }))
    .unwrap()
}

fn instance(name: &str, status: Value) -> VirtualMachineInstance {
    serde_json::from_value(json!({
        "metadata": {"namespace": "vms", "name": name, "labels": {"app": "web"}, "creationTimestamp": "2026-11-30T11:00:00Z",
            "ownerReferences": [{"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceReplicaSet", "name": "web", "uid": "set", "controller": true}]},
        "spec": {}, "status": status,
    }))
    .unwrap()
}

fn ready() -> Value {
    json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})
}

fn planned(set: &ReplicaSet, instances: &[VirtualMachineInstance]) -> Plan {
    plan(set, &instances.iter().collect::<Vec<_>>(), now())
}

fn created(plan: &Plan) -> Vec<&str> {
    let names = plan.actions.iter().map(|action| match action {
        Action::Create(name) => name.as_str(),
        other => panic!("{other:?}"),
    });
    names.collect()
}

// spec: VM-11
#[test]
fn missing_instances_are_made_under_names_that_do_not_change() {
    let first = planned(&set(3), &[]);
    assert_eq!((created(&first).len(), &created(&first)[0][..3]), (3, "web"));
    assert_eq!(planned(&set(3), &[]), first);
    let existing = instance(created(&first)[0], json!({"phase": "Running"}));
    let second = planned(&set(3), &[existing]);
    assert_eq!(created(&second), created(&first)[1..]);
    assert_eq!(
        (second.status.replicas, second.status.ready_replicas, second.status.label_selector.as_str()),
        (1, 0, "app=web")
    );
}

// spec: VM-11
#[test]
fn ended_instances_are_replaced_and_do_not_count() {
    let instances = [
        instance("a", json!({"phase": "Failed"})),
        instance("b", json!({"phase": "Succeeded"})),
        instance("c", ready()),
    ];
    let plan = planned(&set(1), &instances);
    assert_eq!(plan.actions, [Action::Delete("a".to_owned()), Action::Delete("b".to_owned())]);
    assert_eq!((plan.status.replicas, plan.status.ready_replicas), (1, 1));
}

// spec: VM-11
#[test]
fn of_too_many_those_that_are_not_ready_and_the_newest_go() {
    let mut newest = instance("newest", ready());
    newest.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    let instances = [instance("old", ready()), newest, instance("starting", json!({"phase": "Scheduling"}))];
    assert_eq!(planned(&set(2), &instances).actions, [Action::Delete("starting".to_owned())]);
    assert_eq!(
        planned(&set(1), &instances).actions,
        [Action::Delete("starting".to_owned()), Action::Delete("newest".to_owned())]
    );
}

#[test]
fn a_paused_set_keeps_its_number_and_a_deleted_one_does_nothing() {
    let mut paused = set(3);
    paused.spec.paused = true;
    let plan = planned(&paused, &[]);
    assert_eq!((plan.actions.len(), plan.status.conditions[0].kind.as_str()), (0, "ReplicaPaused"));
    let mut deleted = set(3);
    deleted.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    assert_eq!(planned(&deleted, &[]).actions, []);
}

#[test]
fn the_selector_decides_which_instances_are_taken_over_and_given_up() {
    let mut orphan = instance("orphan", ready());
    orphan.metadata.owner_references = None;
    let mut relabelled = instance("relabelled", ready());
    relabelled.metadata.labels = None;
    let mut foreign = instance("foreign", ready());
    foreign.metadata.owner_references.as_mut().unwrap()[0].uid = "another".to_owned();
    let plan = planned(&set(1), &[orphan, relabelled, foreign]);
    assert_eq!(plan.actions, [Action::Release("relabelled".to_owned()), Action::Adopt("orphan".to_owned())]);
    assert_eq!(plan.status.replicas, 1);
    let expressions = json!([{"key": "tier", "operator": "In", "values": ["front", "back"]}, {"key": "old", "operator": "DoesNotExist"},
        {"key": "app", "operator": "Exists"}, {"key": "app", "operator": "NotIn", "values": ["db"]}]);
    let mut by_expression = set(1);
    by_expression.spec.selector = serde_json::from_value(json!({"matchExpressions": expressions})).unwrap();
    let mut matching = instance("a", ready());
    assert_eq!(planned(&by_expression, std::slice::from_ref(&matching)).actions[0], Action::Release("a".to_owned()));
    matching.metadata.labels.get_or_insert_default().insert("tier".to_owned(), "back".to_owned());
    let plan = planned(&by_expression, &[matching]);
    assert_eq!(
        (plan.actions.len(), plan.status.label_selector.as_str()),
        (0, "tier in (front,back),!old,app,app notin (db)")
    );
}

#[test]
fn a_failure_stays_until_the_number_is_reached() {
    let mut failing = set(1);
    let status = failed(&planned(&failing, &[]).status, "FailedCreate", "quota", now());
    failing.status = Some(status.clone());
    assert_eq!(planned(&failing, &[]).status, status);
    assert_eq!(planned(&failing, &[instance("a", ready())]).status.conditions, []);
}

// spec: VM-11
#[test]
fn a_set_is_refused_by_the_paths_of_its_template_and_selector() {
    let read = |set: &ReplicaSet| reading::read(set, &ClusterConfig::new("launcher:1".to_owned())).complaints;
    assert_eq!(read(&set(1)), Vec::<String>::new());
    let mut wrong = set(1);
    wrong.spec.selector = serde_json::from_value(json!({"matchLabels": {"app": "other"}})).unwrap();
    wrong.spec.template["spec"]["domain"]["typo"] = json!(1);
    let expected = [
        "spec.template.metadata.labels: spec.selector must select them",
        "spec.template.spec.domain.typo: unknown field",
    ];
    let found = read(&wrong);
    assert!(found.len() == 2 && expected.iter().zip(&found).all(|(start, text)| text.starts_with(start)), "{found:#?}");
    wrong.spec.selector = <_>::default();
    assert!(read(&wrong)[0].starts_with("spec.selector: must have a condition"));
}
