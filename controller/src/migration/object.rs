//! VirtualMachineInstanceMigration of kubevirt.io/v1 as the API server stores it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::objects::{Condition, lenient};

/// `spec` of a VirtualMachineInstanceMigration.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kubevirt.io",
    version = "v1",
    kind = "VirtualMachineInstanceMigration",
    plural = "virtualmachineinstancemigrations",
    namespaced,
    root = "Migration",
    status = "MigrationStatus",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct MigrationSpec {
    /// The instance to move.
    pub(crate) vmi_name: String,
    /// Labels that the target node must have in addition.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) added_node_selector: BTreeMap<String, String>,
    /// Fields of other releases; they are kept as they are.
    #[serde(flatten)]
    pub(crate) other: Map<String, Value>,
}

/// `status` of a VirtualMachineInstanceMigration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct MigrationStatus {
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub(crate) phase: Option<MigrationPhase>,
    /// When each phase began.
    #[serde(deserialize_with = "lenient")]
    pub(crate) phase_transition_timestamps: Vec<MigrationTransition>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) conditions: Vec<Condition>,
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub(crate) migration_state: Option<MigrationState>,
}

/// Phases of a migration, as KubeVirt names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum MigrationPhase {
    /// It has no target pod yet.
    Pending,
    /// Its target pod exists.
    Scheduling,
    /// The launcher in the target pod waits for the guest.
    Scheduled,
    /// It has ended without moving the guest.
    Failed,
    /// The guest runs in the target pod.
    Succeeded,
    /// A phase that this release does not know.
    #[serde(other)]
    Unknown,
}

impl MigrationPhase {
    /// Whether the migration has ended.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// When a phase began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MigrationTransition {
    pub(crate) phase: MigrationPhase,
    pub(crate) phase_transition_timestamp: Time,
}

/// What became of a migration: part of its status and of its instance's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct MigrationState {
    /// UID of the migration.
    pub(crate) migration_uid: String,
    pub(crate) source_node: String,
    pub(crate) source_pod: String,
    pub(crate) target_node: String,
    pub(crate) target_pod: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) start_timestamp: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) end_timestamp: Option<Time>,
    pub(crate) completed: bool,
    pub(crate) failed: bool,
    /// Why, in a sentence.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) failure_reason: String,
    /// Whether it was deleted before it ended.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) abort_requested: bool,
}

impl Migration {
    /// Whether it has ended.
    pub(crate) fn is_final(&self) -> bool {
        self.status.as_ref().and_then(|status| status.phase).is_some_and(MigrationPhase::is_final)
    }
}
