//! Decisions and launcher pods of instances, from manifests and pods as a cluster shows them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use protocol::agent::AgentStatus;
use protocol::control::{NicStatus, State, Status};
use protocol::outcome::{Outcome, Verdict};
use serde_json::{Value, json};

use super::launch::{self, Launch};
use super::migratable;
use super::names::{ATTEMPT, OUTCOME, UNPAUSED_GATE};
use super::plan::{Action, FINALIZER, Observed, Plan, plan, refused};
use super::pod;
use super::pod_state;
use super::reconcile;
use super::sandbox::Complaint;
use crate::config::{ClusterConfig, WiringChannel};
use crate::objects::{Condition, Phase, VirtualMachineInstance};

#[path = "tests/agent.rs"]
mod agent;
#[path = "tests/claims.rs"]
mod claims;
#[path = "tests/decisions.rs"]
mod decisions;
#[path = "tests/files.rs"]
mod files;
#[path = "tests/golden.rs"]
mod golden;

const UID: &str = "6f1c2d5e-8a4b-4c3d-9e2f-0a1b2c3d4e5f";
const NOW: &str = "2026-11-29T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// A cluster whose launchers run in emulation.
fn config() -> ClusterConfig {
    ClusterConfig { use_emulation: true, ..ClusterConfig::new("localhost/tapvisor/launcher:1".to_owned()) }
}

/// An instance `vms/web` as the API server stores it.
fn instance(spec: Value) -> VirtualMachineInstance {
    serde_json::from_value(json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"namespace": "vms", "name": "web", "uid": UID, "labels": {"app": "web"}},
        "spec": spec,
    }))
    .unwrap()
}

fn small() -> VirtualMachineInstance {
    instance(json!({
        "domain": {"memory": {"guest": "128Mi"}, "devices": {"interfaces": [{"name": "default", "masquerade": {}}]}},
        "networks": [{"name": "default", "pod": {}}],
    }))
}

/// The small instance in a phase, with its finalizer.
fn small_in(phase: Phase) -> VirtualMachineInstance {
    let mut object = small();
    object.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    object.status.get_or_insert_default().phase = Some(phase);
    object
}

fn launch(object: &VirtualMachineInstance, config: &ClusterConfig) -> Launch {
    launch::read(object, config).launch.unwrap()
}

/// A pod of the instance's first attempt with a status.
fn launcher_pod(status: Value) -> Pod {
    pod_of_attempt(1, status)
}

fn pod_of_attempt(attempt: u32, status: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": format!("virt-launcher-web-{attempt}"), "uid": format!("pod-{attempt}"), "annotations": {ATTEMPT: attempt.to_string()}},
        "spec": {"nodeName": "node1", "containers": []},
        "status": status,
    }))
    .unwrap()
}

fn container(state: Value) -> Value {
    json!([{"name": "compute", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}])
}

fn ended(code: i32, message: &str) -> Value {
    let state = json!({"terminated": {"exitCode": code, "message": message, "finishedAt": "2026-11-29T11:59:59Z"}});
    json!({"phase": if code == 0 { "Succeeded" } else { "Failed" }, "containerStatuses": container(state)})
}

fn running(conditions: Value) -> Value {
    json!({"phase": "Running", "podIPs": [{"ip": "10.244.1.8"}, {"ip": "fd00::8"}], "qosClass": "Burstable",
        "containerStatuses": container(json!({"running": {}})), "conditions": conditions})
}

/// An observation to be changed and decided about.
struct Case {
    object: VirtualMachineInstance,
    missing_claims: Vec<String>,
    filling_claims: Vec<String>,
    pods: Vec<Pod>,
    targets: Vec<Pod>,
    earlier: Vec<Pod>,
    sandbox_failure: Option<&'static str>,
    launcher: Option<State>,
    agent: Option<AgentStatus>,
    nics: Vec<NicStatus>,
    outcome: Option<Outcome>,
    config: ClusterConfig,
}

impl Case {
    fn new(object: VirtualMachineInstance, pods: Vec<Pod>) -> Self {
        Self {
            object,
            missing_claims: Vec::new(),
            filling_claims: Vec::new(),
            pods,
            targets: Vec::new(),
            earlier: Vec::new(),
            sandbox_failure: None,
            launcher: None,
            agent: None,
            nics: Vec::new(),
            outcome: None,
            config: config(),
        }
    }

    fn plan(&self) -> Plan {
        let launch = launch::read(&self.object, &self.config).launch;
        plan(&Observed {
            object: &self.object,
            launch: &launch,
            missing_claims: &self.missing_claims,
            filling_claims: &self.filling_claims,
            pods: &self.pods,
            targets: &self.targets,
            earlier: &self.earlier,
            complaint: self
                .sandbox_failure
                .map(|message| Complaint { reason: "FailedCreatePodSandBox".to_owned(), message: message.to_owned() }),
            launcher: self.launcher.map(|state| Status {
                agent: self.agent.clone(),
                nics: self.nics.clone(),
                ..Status::new(state)
            }),
            outcome: self.outcome.clone(),
            now: now(),
        })
    }
}

fn condition<'a>(plan: &'a Plan, kind: &str) -> Option<&'a Condition> {
    plan.status.conditions.iter().find(|condition| condition.kind == kind)
}

/// Status, reason and message of a condition.
fn told<'a>(plan: &'a Plan, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let condition = condition(plan, kind)?;
    let text = |text: &'a Option<String>| text.as_deref().unwrap_or_default();
    Some((&condition.status, text(&condition.reason), text(&condition.message)))
}
