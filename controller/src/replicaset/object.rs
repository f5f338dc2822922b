//! VirtualMachineInstanceReplicaSet of kubevirt.io/v1 as the API server stores it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::objects::{Condition, lenient};

/// `spec` of a VirtualMachineInstanceReplicaSet.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kubevirt.io",
    version = "v1",
    kind = "VirtualMachineInstanceReplicaSet",
    plural = "virtualmachineinstancereplicasets",
    namespaced,
    root = "ReplicaSet",
    status = "ReplicaSetStatus",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ReplicaSetSpec {
    /// How many instances there should be; one if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replicas: Option<u32>,
    /// Which instances count.
    pub(crate) selector: LabelSelector,
    /// Metadata and spec of the instances.
    pub(crate) template: Value,
    /// Whether the number of instances is left as it is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) paused: bool,
    /// Fields of other releases; they are kept as they are.
    #[serde(flatten)]
    pub(crate) other: Map<String, Value>,
}

/// `status` of a VirtualMachineInstanceReplicaSet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ReplicaSetStatus {
    /// Instances that have neither ended nor been deleted.
    #[serde(deserialize_with = "lenient")]
    pub(crate) replicas: u32,
    /// Those of them that are ready.
    #[serde(deserialize_with = "lenient")]
    pub(crate) ready_replicas: u32,
    /// The selector as text, for autoscalers.
    #[serde(deserialize_with = "lenient")]
    pub(crate) label_selector: String,
    #[serde(deserialize_with = "lenient")]
    pub(crate) conditions: Vec<Condition>,
}
