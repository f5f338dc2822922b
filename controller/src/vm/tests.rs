//! Decisions for machines: the tables of run strategies, requests, back-off, statuses, conditions and generations.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::ControllerRevision;
use serde_json::{Value, json};

use super::instance::{FINALIZER, instance};
use super::object::VirtualMachine;
use super::plan::{Action, Observed, Plan, failed, plan};
use super::reading;
use super::revision::{self, revision};
use crate::config::ClusterConfig;
use crate::objects::{Condition, VirtualMachineInstance};
use crate::vmi::plan::FINALIZER as INSTANCE_FINALIZER;

#[path = "tests/admission.rs"]
mod admission;
#[path = "tests/end.rs"]
mod end;
#[path = "tests/status.rs"]
mod status;
#[path = "tests/strategies.rs"]
mod strategies;

const VM: &str = "6f1c2d5e-8a4b-4c3d-9e2f-0a1b2c3d4e5f";
const VMI: &str = "11111111-2222-4333-8444-555555555555";
const START: Action = Action::CreateInstance { is_paused: false };

fn now() -> Timestamp {
    "2026-11-30T12:00:00Z".parse().unwrap()
}

/// A machine `vms/web` as the API server stores it, with its finalizer.
fn machine(strategy: &str) -> VirtualMachine {
    serde_json::from_value(json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
        "metadata": {"namespace": "vms", "name": "web", "uid": VM, "generation": 3, "finalizers": [FINALIZER]},
        "spec": {
            "runStrategy": strategy,
            "template": {
                "metadata": {"labels": {"app": "web"}, "annotations": {"note": "mine"}},
                "spec": {
                    "domain": {"memory": {"guest": "128Mi"}, "devices": {"interfaces": [{"name": "default", "masquerade": {}}]}},
                    "networks": [{"name": "default", "pod": {}}],
                },
            },
        },
    }))
    .unwrap()
}

/// The instance of [`machine`] in a phase.
fn in_phase(phase: &str) -> VirtualMachineInstance {
    let mut vmi = instance(&machine("Always"), false, &revision::name(&machine("Always"))).unwrap();
    vmi.metadata.uid = Some(VMI.to_owned());
    vmi.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
        now().checked_sub(SignedDuration::from_secs(60)).unwrap(),
    ));
    vmi.metadata.finalizers.get_or_insert_default().push(INSTANCE_FINALIZER.to_owned());
    if !phase.is_empty() {
        let status = vmi.status.get_or_insert_default();
        status.phase = Some(serde_json::from_value(json!(phase)).unwrap());
    }
    vmi
}

/// An instance that ran before it came into a phase.
fn after_running(phase: &str) -> VirtualMachineInstance {
    let mut vmi = in_phase(phase);
    let transition = json!({"phase": "Running", "phaseTransitionTimestamp": "2026-11-30T11:00:00Z"});
    let status = vmi.status.get_or_insert_default();
    status.phase_transition_timestamps = vec![serde_json::from_value(transition).unwrap()];
    vmi
}

fn with_condition(mut vmi: VirtualMachineInstance, kind: &str, status: &str, reason: &str) -> VirtualMachineInstance {
    let condition = Condition {
        kind: kind.to_owned(),
        status: status.to_owned(),
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
        message: None,
        last_transition_time: None,
    };
    vmi.status.get_or_insert_default().conditions.push(condition);
    vmi
}

fn deleted(mut vmi: VirtualMachineInstance) -> VirtualMachineInstance {
    vmi.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    vmi
}

/// An observation to be changed and decided about.
struct Case {
    vm: VirtualMachine,
    vmi: Option<VirtualMachineInstance>,
    complaints: Vec<String>,
    references: Vec<(&'static str, Value)>,
    used: Vec<String>,
    revisions: Vec<ControllerRevision>,
    now: Timestamp,
}

impl Case {
    fn new(vm: VirtualMachine, vmi: Option<VirtualMachineInstance>) -> Self {
        let (references, used) = (Vec::new(), Vec::new());
        Self { vm, vmi, complaints: Vec::new(), references, used, revisions: Vec::new(), now: now() }
    }

    fn of(strategy: &str, vmi: Option<VirtualMachineInstance>) -> Self {
        Self::new(machine(strategy), vmi)
    }

    /// With this as the status of the machine.
    fn status(mut self, status: Value) -> Self {
        self.vm.status = Some(serde_json::from_value(status).unwrap());
        self
    }

    fn observed(&self) -> Observed<'_> {
        Observed {
            vm: &self.vm,
            complaints: &self.complaints,
            references: &self.references,
            used: &self.used,
            vmi: self.vmi.as_ref(),
            revisions: &self.revisions,
            now: self.now,
        }
    }

    fn plan(&self) -> Plan {
        plan(&self.observed())
    }

    fn actions(&self) -> Vec<Action> {
        self.plan().actions
    }
}

fn condition<'a>(plan: &'a Plan, kind: &str) -> Option<&'a Condition> {
    plan.status.conditions.iter().find(|condition| condition.kind == kind)
}

/// Status and reason of a condition.
fn told<'a>(plan: &'a Plan, kind: &str) -> Option<(&'a str, &'a str)> {
    let condition = condition(plan, kind)?;
    Some((&condition.status, condition.reason.as_deref().unwrap_or_default()))
}

fn word(plan: &Plan) -> &str {
    plan.status.printable_status.as_deref().unwrap_or_default()
}

fn starts(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::CreateInstance { .. }))
}
