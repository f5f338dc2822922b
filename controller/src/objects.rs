//! The kubevirt.io/v1 objects as the API server stores them: identity, raw spec, and the status that the controller writes.
//!
//! A spec stays a JSON value here, so that fields of another release survive; [`api`] reads it strictly.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use protocol::agent::GuestOs;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// Reads a field of a status that another release may have written: what cannot be read counts as absent and is written again.
/// A watch ends at the first object that cannot be read, so one would hide all others.
pub(crate) fn lenient<'de, D: Deserializer<'de>, T: Default + DeserializeOwned>(
    deserializer: D,
) -> Result<T, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

/// `spec` of a VirtualMachineInstance, as it was written.
#[derive(CustomResource, Debug, Clone, Default, Serialize, Deserialize)]
#[kube(
    group = "kubevirt.io",
    version = "v1",
    kind = "VirtualMachineInstance",
    plural = "virtualmachineinstances",
    namespaced,
    status = "InstanceStatus",
    schema = "disabled"
)]
pub(crate) struct InstanceSpec {
    /// Every field.
    #[serde(flatten)]
    pub(crate) fields: Map<String, Value>,
}

/// `status` of a VirtualMachineInstance, as far as the controller writes it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct InstanceStatus {
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub(crate) phase: Option<Phase>,
    /// When each phase began.
    #[serde(deserialize_with = "lenient")]
    pub(crate) phase_transition_timestamps: Vec<PhaseTransition>,
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub(crate) node_name: Option<String>,
    /// The node of each launcher pod that exists, by the pod's UID.
    #[serde(deserialize_with = "lenient")]
    pub(crate) active_pods: BTreeMap<String, String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) conditions: Vec<Condition>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) interfaces: Vec<InterfaceStatus>,
    /// What the guest's agent says of the guest's operating system.
    #[serde(deserialize_with = "lenient", rename = "guestOSInfo", skip_serializing_if = "Option::is_none")]
    pub(crate) guest_os_info: Option<GuestOs>,
    /// `frozen` while the guest's file systems are.
    #[serde(deserialize_with = "lenient", rename = "fsFreezeStatus", skip_serializing_if = "Option::is_none")]
    pub(crate) fs_freeze_status: Option<String>,
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub(crate) qos_class: Option<String>,
    /// User id of the launcher.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub(crate) runtime_user: Option<i64>,
    /// The ControllerRevision with the spec of its VirtualMachine when it was started.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub(crate) virtual_machine_revision_name: Option<String>,
}

/// Phases of an instance, as KubeVirt names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// Accepted; it has no pod yet.
    Pending,
    /// Its launcher pod exists.
    Scheduling,
    /// The launcher runs, the guest does not yet.
    Scheduled,
    /// The guest runs.
    Running,
    /// The guest powered off, or was stopped on request.
    Succeeded,
    /// The guest or its launcher failed.
    Failed,
    /// A phase that this release does not know.
    #[serde(other)]
    Unknown,
}

impl Phase {
    /// Whether the instance has ended.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// When a phase began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PhaseTransition {
    pub(crate) phase: Phase,
    pub(crate) phase_transition_timestamp: Time,
}

/// One condition of an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// `True`, `False` or `Unknown`.
    pub(crate) status: String,
    /// Why, in one CamelCase word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// Why, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
    /// When `status` last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_transition_time: Option<Time>,
}

/// A NIC of the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct InterfaceStatus {
    /// Its name in the specification; empty for one that only the guest knows.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    pub(crate) mac: String,
    /// Its name in the guest.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) interface_name: String,
    /// The first of `ip_addresses`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ip_address: Option<String>,
    /// Addresses by which it is reached.
    pub(crate) ip_addresses: Vec<String>,
    /// Where it is known from: `domain` (the machine that the launcher runs), `guest-agent`, `multus-status`.
    pub(crate) info_source: String,
    /// `up` or `down`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) link_state: String,
    /// Queue pairs.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) queue_count: u64,
    /// The interface in the pod.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) pod_interface_name: String,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// `spec` of a KubeVirt object, as it was written.
#[derive(CustomResource, Debug, Clone, Default, Serialize, Deserialize)]
#[kube(
    group = "kubevirt.io",
    version = "v1",
    kind = "KubeVirt",
    plural = "kubevirts",
    namespaced,
    status = "InstallationStatus",
    schema = "disabled"
)]
pub(crate) struct InstallationSpec {
    /// Every field.
    #[serde(flatten)]
    pub(crate) fields: Map<String, Value>,
}

/// `status` of a KubeVirt object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct InstallationStatus {
    /// `Deployed` once a configuration is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) phase: Option<String>,
    pub(crate) conditions: Vec<Condition>,
    /// The generation whose configuration is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) observed_generation: Option<i64>,
    /// The release that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) observed_kube_virt_version: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::migration::object::Migration;
    use crate::vm::VirtualMachine;

    // spec: CTRL-39
    #[test]
    fn a_status_of_another_release_hides_no_object() {
        let status = json!({"phase": "Running", "phaseTransitionTimestamps": "x", "interfaces": [{"queueCount": -1}],
            "conditions": [{"type": 1}], "created": "yes", "ready": true, "startFailure": {"consecutiveFailCount": -1},
            "runtimeUser": "107", "activePods": {"a": "node1"}, "migrationState": 7, "later": {"field": 1}});
        let of = |kind: &str| {
            json!({"apiVersion": "kubevirt.io/v1", "kind": kind, "metadata": {"name": "older"}, "status": status,
                "spec": {"vmiName": "older", "later": true}})
        };
        let vmi: VirtualMachineInstance = serde_json::from_value(of("VirtualMachineInstance")).unwrap();
        let read = vmi.status.unwrap();
        assert_eq!((read.phase, read.runtime_user, read.conditions.len()), (Some(Phase::Running), None, 0));
        assert_eq!(read.active_pods.len(), 1);
        let vm: VirtualMachine = serde_json::from_value(of("VirtualMachine")).unwrap();
        let read = vm.status.unwrap();
        assert_eq!((read.created, read.ready, read.start_failure), (false, true, None));
        assert_eq!(read.other["later"], json!({"field": 1}), "it is kept");
        let migration: Migration = serde_json::from_value(of("VirtualMachineInstanceMigration")).unwrap();
        assert!(migration.status.unwrap().migration_state.is_none());
    }
}
