//! `explain` of an instance: why its network works or not, as the agent of its node sees it. No subresource of KubeVirt.

use std::net::IpAddr;

use hyper::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use node_protocol::{ExplainPhase, ExplainRequest};

use super::calls::{Api, instance, json_answer};
use super::instance::{Launcher, failure, has_condition, is_running, launcher_pod, phase};
use super::path::Target;
use super::status::{Failure, Kind};
use crate::http::Answer;
use crate::objects::{Phase, VirtualMachineInstance};
use crate::vmi;

/// The explanation, as `tapvisor explain -o json` prints it.
///
/// # Errors
/// The instance does not exist or no launcher runs for it, or the agent cannot.
pub(super) async fn explanation(api: &Api, target: &Target) -> Result<Answer, Failure> {
    let vmi = instance(&api.client, &target.namespace, &target.name).await?;
    let pod = launcher_pod(api, &vmi).await?.ok_or_else(|| not_running(&vmi))?;
    let vm = request(&vmi, &pod)?;
    let launcher = Launcher::in_pod(pod).ok_or_else(|| not_running(&vmi))?;
    let explained = api.launchers.explain(&launcher.node, &launcher.pod, &vm).await;
    Ok(json_answer(StatusCode::OK, &explained.map_err(|error| failure(&target.name, &error))?))
}

/// Without a launcher there is no network to look at: the conditions say why.
fn not_running(vmi: &VirtualMachineInstance) -> Failure {
    let conditions = vmi.status.iter().flat_map(|status| &status.conditions);
    let told = conditions.filter(|condition| condition.status == "False" && condition.message.is_some());
    let told =
        told.map(|condition| format!("; {}: {}", condition.kind, condition.message.as_deref().unwrap_or_default()));
    let why = format!("no launcher pod runs, the phase is {}{}", phase(vmi), told.collect::<String>());
    Failure::conflict(Kind::Instance, &vmi.name_any(), why)
}

fn request(vmi: &VirtualMachineInstance, pod: &Pod) -> Result<ExplainRequest, Failure> {
    let wiring = vmi::wiring(pod.annotations());
    let wiring = wiring.ok_or_else(|| Failure::internal("the launcher pod has no wiring request"))?;
    let addresses = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
    let addresses: Vec<IpAddr> = addresses.filter_map(|address| address.ip.parse().ok()).collect();
    let status = vmi.status.as_ref();
    let mut began = status.into_iter().flat_map(|status| &status.phase_transition_timestamps);
    let running_since = began.rfind(|began| began.phase == Phase::Running);
    let running_since = running_since.map(|began| began.phase_transition_timestamp.0.as_second());
    Ok(ExplainRequest {
        namespace: vmi.namespace().unwrap_or_default(),
        name: vmi.name_any(),
        has_machine: vmi.owner_references().iter().any(|owner| owner.kind == "VirtualMachine"),
        pod: pod.name_any(),
        phase: match (is_running(vmi), has_condition(vmi, "Paused")) {
            (true, true) => ExplainPhase::Paused,
            (true, false) => ExplainPhase::Running,
            (false, _) => ExplainPhase::Starting,
        },
        addresses,
        running_since_unix_seconds: running_since.and_then(|seconds| seconds.try_into().ok()),
        wiring,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn vmi(status: &Value) -> VirtualMachineInstance {
        let object = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "spec": {}, "status": status,
            "metadata": {"namespace": "vms", "name": "web", "ownerReferences": [
                {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": "web", "uid": "1", "controller": true}]}});
        serde_json::from_value(object).unwrap()
    }

    fn pod(annotations: &Value) -> Pod {
        let object = json!({"metadata": {"name": "virt-launcher-web", "annotations": annotations},
            "status": {"podIPs": [{"ip": "10.244.1.5"}, {"ip": "fd00::5"}]}});
        serde_json::from_value(object).unwrap()
    }

    // spec: EXPL-21
    #[test]
    fn the_agent_is_told_what_the_cluster_knows_of_an_instance() {
        let running = vmi(&json!({"phase": "Running", "phaseTransitionTimestamps": [
            {"phase": "Pending", "phaseTransitionTimestamp": "2026-11-30T10:00:00Z"},
            {"phase": "Running", "phaseTransitionTimestamp": "2026-11-30T10:00:09Z"}]}));
        let wiring = json!({"version": 1, "interfaces": []});
        let networks = json!([{"name": "lan"}, {"name": "tapvisor-wiring", "cni-args": {"wiring": wiring}}]);
        let ways = [
            json!({"tapvisor.io/wiring": wiring.to_string()}),
            json!({"k8s.v1.cni.cncf.io/networks": networks.to_string()}),
        ];
        for annotations in ways {
            let told = request(&running, &pod(&annotations)).unwrap();
            assert_eq!((told.phase, told.has_machine, told.wiring), (ExplainPhase::Running, true, wiring.clone()));
            assert_eq!((told.addresses.len(), told.running_since_unix_seconds), (2, Some(1_796_032_809)));
        }
        assert_eq!(request(&running, &pod(&json!({}))).unwrap_err().code, 500);
    }

    // spec: EXPL-21
    #[test]
    fn without_a_launcher_the_refusal_says_what_the_conditions_say() {
        let refused = vmi(&json!({"phase": "Scheduling", "conditions": [
            {"type": "PodScheduled", "status": "True", "message": "not this"},
            {"type": "Ready", "status": "False", "message": "NIC default: no tap"}]}));
        let failure = not_running(&refused);
        let expected = "no launcher pod runs, the phase is Scheduling; Ready: NIC default: no tap";
        assert!(failure.code == 409 && failure.message.ends_with(expected), "{}", failure.message);
    }
}
