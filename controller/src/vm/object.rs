//! VirtualMachine of kubevirt.io/v1 as the API server stores it: identity, raw spec, and the status that clients of
//! KubeVirt read and write requests into.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::objects::{Condition, lenient};

/// `spec` of a VirtualMachine, as it was written.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kubevirt.io",
    version = "v1",
    kind = "VirtualMachine",
    plural = "virtualmachines",
    namespaced,
    status = "MachineStatus",
    schema = "disabled"
)]
pub(crate) struct MachineSpec {
    /// Every field.
    #[serde(flatten)]
    pub(crate) fields: Map<String, Value>,
}

/// `status` of a VirtualMachine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct MachineStatus {
    /// Whether its instance exists.
    #[serde(deserialize_with = "lenient")]
    pub(crate) created: bool,
    /// Whether its instance is ready.
    #[serde(deserialize_with = "lenient")]
    pub(crate) ready: bool,
    /// The state in one word, for people.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub(crate) printable_status: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) conditions: Vec<Condition>,
    /// The run strategy under which it last had an instance; absent until the first start.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub(crate) run_strategy: Option<String>,
    /// Starts and stops that users asked for, the first to be executed first.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Vec::is_empty")]
    pub(crate) state_change_requests: Vec<StateChangeRequest>,
    /// Starts that failed before the guest ran, in a row.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub(crate) start_failure: Option<StartFailure>,
    /// Generation of the VirtualMachine that the instance runs.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub(crate) observed_generation: Option<i64>,
    /// Generation of the VirtualMachine at that time.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub(crate) desired_generation: Option<i64>,
    /// Fields of other releases; they are kept as they are.
    #[serde(flatten)]
    pub(crate) other: Map<String, Value>,
}

/// A start or stop that a user asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateChangeRequest {
    pub(crate) action: StateChange,
    /// `paused: "true"` of a start whose guest is to wait for `unpause`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) data: BTreeMap<String, String>,
    /// UID of the instance that is to stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<String>,
}

/// What a user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StateChange {
    Start,
    Stop,
}

/// Starts that failed before the guest ran.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct StartFailure {
    /// How many, in a row.
    pub(crate) consecutive_fail_count: u32,
    /// UID of the instance that was counted last.
    #[serde(rename = "lastFailedVMIUID")]
    pub(crate) last_failed_vmi_uid: String,
    /// The next start is not before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_after_timestamp: Option<Time>,
}
