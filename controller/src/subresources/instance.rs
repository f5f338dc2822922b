//! Actions on an instance that runs: whether they are possible, and the request to its launcher.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::ListParams;
use node_protocol::PodUid;
use protocol::control::Verb;
use serde::Deserialize;
use serde_json::{Value, json};

use super::calls::{Api, accepted, instance, options};
use super::durations::seconds;
use super::path::Target;
use super::status::{Failure, Kind};
use crate::agents::AgentError;
use crate::http::Answer;
use crate::objects::{Phase, VirtualMachineInstance};
use crate::vmi::names::{CREATED_BY, MIGRATION};

/// An action on a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Pause,
    Unpause,
    Reset,
    SoftReboot,
    Freeze,
    Unfreeze,
}

impl Action {
    /// The action of a subresource's name.
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "pause" => Some(Self::Pause),
            "unpause" => Some(Self::Unpause),
            "reset" => Some(Self::Reset),
            "softreboot" => Some(Self::SoftReboot),
            "freeze" => Some(Self::Freeze),
            "unfreeze" => Some(Self::Unfreeze),
            _ => None,
        }
    }

    fn verb(self) -> Verb {
        match self {
            Self::Pause => Verb::Pause,
            Self::Unpause => Verb::Resume,
            Self::Reset => Verb::Reset,
            Self::SoftReboot => Verb::Reboot,
            Self::Freeze => Verb::Freeze,
            Self::Unfreeze => Verb::Unfreeze,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ActionOptions {
    dry_run: Vec<String>,
    unfreeze_timeout: Option<String>,
}

/// Does it.
///
/// # Errors
/// The instance does not exist or is in another state, or its launcher was not reached.
pub(super) async fn act(api: &Api, target: &Target, action: Action, body: &[u8]) -> Result<Answer, Failure> {
    let ActionOptions { dry_run, unfreeze_timeout } = options(body)?;
    let fields = match (action, unfreeze_timeout) {
        (Action::Freeze, None) => return Err(Failure::bad_request("Unfreeze timeout in body cannot be nil")),
        (Action::Freeze, Some(timeout)) => json!({"unfreezeSeconds": seconds(&timeout)?}),
        _ => Value::Null,
    };
    let vmi = instance(&api.client, &target.namespace, &target.name).await?;
    check(action, &vmi)?;
    if dry_run.iter().any(|stage| stage == "All") {
        return Ok(accepted());
    }
    let launcher = Launcher::of(api, &vmi).await?;
    let done = api.launchers.ask(&launcher.node, &launcher.pod, action.verb(), &fields).await;
    done.map_err(|error| failure(&target.name, &error))?;
    Ok(accepted())
}

/// Whether an instance's state allows an action, as KubeVirt's virt-api decides it.
fn check(action: Action, vmi: &VirtualMachineInstance) -> Result<(), Failure> {
    let name = &vmi.name_any();
    let conflict = |why: &str| Err(Failure::conflict(Kind::Instance, name, why));
    let (is_running, is_paused) = (is_running(vmi), has_condition(vmi, "Paused"));
    match action {
        Action::Pause if !is_running => conflict("VM is not running"),
        Action::Pause if asks_a_paused_guest(vmi) => {
            Err(Failure::forbidden(Kind::Instance, name, "Pausing VMIs with LivenessProbe is currently not supported"))
        }
        Action::Pause if is_paused => conflict("VMI is already paused"),
        Action::Unpause if !is_running => conflict("VMI is not running"),
        Action::Unpause if !is_paused => conflict("VMI is not paused"),
        Action::Reset if !is_running => {
            let phase = phase(vmi);
            Err(Failure::bad_request(format!(
                "Failed to reset non-running VMI with phase {phase}: Unable to connect to VirtualMachineInstance because phase is {phase} instead of Running or Scheduled"
            )))
        }
        Action::SoftReboot if !is_running => conflict("VM is not running"),
        Action::SoftReboot if is_paused => conflict("VMI is paused"),
        Action::SoftReboot if !has_condition(vmi, "AgentConnected") && !has_acpi(vmi) => {
            conflict("VMI neither have the agent connected nor the ACPI feature enabled")
        }
        Action::Freeze | Action::Unfreeze => check_agent(vmi),
        _ => Ok(()),
    }
}

/// Whether the guest runs and its agent is connected.
///
/// # Errors
/// Neither, with KubeVirt's text.
pub(super) fn check_agent(vmi: &VirtualMachineInstance) -> Result<(), Failure> {
    let why = match (is_running(vmi), has_condition(vmi, "AgentConnected")) {
        (true, true) => return Ok(()),
        (true, false) => "VMI does not have guest agent connected",
        (false, _) => "VMI is not running",
    };
    Err(Failure::conflict(Kind::Instance, &vmi.name_any(), why))
}

/// Whether a liveness probe would end a guest for being paused; one that only asks the agent is KubeVirt's exception.
fn asks_a_paused_guest(vmi: &VirtualMachineInstance) -> bool {
    let probe = vmi.spec.fields.get("livenessProbe").filter(|probe| !probe.is_null());
    probe.is_some_and(|probe| probe["guestAgentPing"].is_null())
}

fn has_acpi(vmi: &VirtualMachineInstance) -> bool {
    let domain = vmi.spec.fields.get("domain").unwrap_or(&Value::Null);
    domain.pointer("/features/acpi/enabled") != Some(&Value::Bool(false))
}

/// Whether the guest runs.
pub(super) fn is_running(vmi: &VirtualMachineInstance) -> bool {
    vmi.status.as_ref().is_some_and(|status| status.phase == Some(Phase::Running))
}

/// The phase as it is in messages.
pub(super) fn phase(vmi: &VirtualMachineInstance) -> String {
    let phase = vmi.status.as_ref().and_then(|status| status.phase);
    phase.map(|phase| format!("{phase:?}")).unwrap_or_default()
}

/// Whether a condition is there and not `False`.
pub(super) fn has_condition(vmi: &VirtualMachineInstance, kind: &str) -> bool {
    let mut conditions = vmi.status.iter().flat_map(|status| &status.conditions);
    conditions.any(|condition| condition.kind == kind && condition.status != "False")
}

/// Where an instance's launcher runs.
pub(super) struct Launcher {
    pub(super) node: String,
    pub(super) pod: PodUid,
}

impl Launcher {
    /// Finds the pod that runs an instance.
    ///
    /// # Errors
    /// None runs, or the API server did not answer.
    pub(super) async fn of(api: &Api, vmi: &VirtualMachineInstance) -> Result<Self, Failure> {
        let pod = launcher_pod(api, vmi).await?;
        pod.and_then(Self::in_pod).ok_or_else(|| Failure::internal("the instance has no launcher pod that runs"))
    }

    /// The launcher in a pod; `None` for a pod that no node has.
    pub(super) fn in_pod(pod: Pod) -> Option<Self> {
        Some(Self { pod: pod.uid()?.parse().ok()?, node: pod.spec?.node_name? })
    }
}

/// The pod that runs an instance, if one does.
///
/// # Errors
/// The API server did not answer.
pub(super) async fn launcher_pod(api: &Api, vmi: &VirtualMachineInstance) -> Result<Option<Pod>, Failure> {
    let pods = kube::Api::<Pod>::namespaced(api.client.clone(), &vmi.namespace().unwrap_or_default());
    let label = format!("{CREATED_BY}={},!{MIGRATION}", vmi.uid().unwrap_or_default());
    let found = pods.list(&ListParams::default().labels(&label).fields("status.phase=Running")).await;
    let found = found.map_err(|error| Failure::internal(format!("cannot list launcher pods: {error}")))?;
    Ok(found.into_iter().max_by_key(|pod| pod.metadata.creation_timestamp.clone()))
}

/// What a client is told when a launcher was not reached or refused.
pub(super) fn failure(name: &str, error: &AgentError) -> Failure {
    match error {
        AgentError::Refused(why) => Failure::conflict(Kind::Instance, name, why),
        other => Failure::internal(protocol::chain::chain(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vmi(phase: &str, conditions: &[&str], spec: Value) -> VirtualMachineInstance {
        let conditions: Vec<_> = conditions.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
        let object = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {"namespace": "vms", "name": "web"}, "spec": spec, "status": {"phase": phase, "conditions": conditions}});
        serde_json::from_value(object).unwrap()
    }

    fn refused(action: Action, vmi: &VirtualMachineInstance) -> (u16, String) {
        let failure = check(action, vmi).unwrap_err();
        (failure.code.as_u16(), failure.message)
    }

    // spec: SUB-3
    #[test]
    fn an_action_on_an_instance_in_another_state_has_kubevirts_code_and_text() {
        let (pending, running, paused) =
            (vmi("Pending", &[], json!({})), vmi("Running", &[], json!({})), vmi("Running", &["Paused"], json!({})));
        let on = "Operation cannot be fulfilled on virtualmachineinstance.kubevirt.io \"web\": ";
        for (action, vmi, code, text) in [
            (Action::Pause, &pending, 409, format!("{on}VM is not running")),
            (Action::Pause, &paused, 409, format!("{on}VMI is already paused")),
            (Action::Unpause, &pending, 409, format!("{on}VMI is not running")),
            (Action::Unpause, &running, 409, format!("{on}VMI is not paused")),
            (Action::SoftReboot, &pending, 409, format!("{on}VM is not running")),
            (Action::SoftReboot, &paused, 409, format!("{on}VMI is paused")),
            (Action::Freeze, &pending, 409, format!("{on}VMI is not running")),
            (Action::Unfreeze, &running, 409, format!("{on}VMI does not have guest agent connected")),
            (
                Action::Reset,
                &pending,
                400,
                "Failed to reset non-running VMI with phase Pending: Unable to connect to VirtualMachineInstance because phase is Pending instead of Running or Scheduled".to_owned(),
            ),
        ] {
            assert_eq!(refused(action, vmi), (code, text), "{action:?}");
        }
        for (action, vmi) in [
            (Action::Pause, &running),
            (Action::Unpause, &paused),
            (Action::Reset, &running),
            (Action::Reset, &paused),
            (Action::SoftReboot, &running),
        ] {
            assert_eq!(check(action, vmi), Ok(()), "{action:?}");
        }
    }

    // spec: SUB-3
    #[test]
    fn a_liveness_probe_forbids_pause_and_a_guest_without_acpi_soft_reboot() {
        let probed = vmi("Running", &[], json!({"livenessProbe": {"tcpSocket": {"port": 80}}}));
        assert_eq!(refused(Action::Pause, &probed).0, 403);
        let pinged = vmi("Running", &[], json!({"livenessProbe": {"guestAgentPing": {}}}));
        assert_eq!(check(Action::Pause, &pinged), Ok(()));
        let spec = json!({"domain": {"features": {"acpi": {"enabled": false}}}});
        assert!(refused(Action::SoftReboot, &vmi("Running", &[], spec.clone())).1.ends_with("ACPI feature enabled"));
        assert_eq!(check(Action::SoftReboot, &vmi("Running", &["AgentConnected"], spec)), Ok(()));
    }
}
