//! The target pod of a migration: the instance's launcher pod on another node, whose launcher waits for the guest.

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::object::Migration;
use crate::config::ClusterConfig;
use crate::objects::VirtualMachineInstance;
use crate::vmi::launch::Launch;
use crate::vmi::names::{CREATED_BY, MIGRATION};
use crate::vmi::pod;

/// Annotation with the name of the migration.
const MIGRATION_NAME: &str = "kubevirt.io/migrationJobName";
const HOST_NAME: &str = "kubernetes.io/hostname";

/// Name of the target pod.
pub(super) fn name(migration: &Migration) -> String {
    pod::pod_name(&migration.spec.vmi_name, migration.metadata.uid.as_deref().unwrap_or_default(), 1)
}

/// The target pod: never on a node with a pod of the instance, and only where the migration's labels are too.
///
/// # Errors
/// A defect of this module: the shape is not a pod's.
pub(super) fn pod(
    migration: &Migration,
    vmi: &VirtualMachineInstance,
    launch: &Launch,
    config: &ClusterConfig,
) -> Result<Pod, serde_json::Error> {
    let mut pod = pod::pod(vmi, launch, config, 1)?;
    let uid = migration.metadata.uid.clone().unwrap_or_default();
    pod.metadata.name = Some(name(migration));
    // It runs no guest whose end must be known.
    pod.metadata.finalizers = None;
    pod.metadata.labels.get_or_insert_default().insert(MIGRATION.to_owned(), uid);
    let name = migration.metadata.name.clone().unwrap_or_default();
    pod.metadata.annotations.get_or_insert_default().insert(MIGRATION_NAME.to_owned(), name);
    let spec = pod.spec.get_or_insert_default();
    for (label, value) in &migration.spec.added_node_selector {
        spec.node_selector.get_or_insert_default().entry(label.clone()).or_insert_with(|| value.clone());
    }
    let of_instance = [(CREATED_BY.to_owned(), vmi.metadata.uid.clone().unwrap_or_default())].into();
    let elsewhere = PodAffinityTerm {
        label_selector: Some(LabelSelector { match_labels: Some(of_instance), ..LabelSelector::default() }),
        topology_key: HOST_NAME.to_owned(),
        ..PodAffinityTerm::default()
    };
    let rules = spec.affinity.get_or_insert_default().pod_anti_affinity.get_or_insert_default();
    rules.required_during_scheduling_ignored_during_execution.get_or_insert_default().push(elsewhere);
    for container in &mut spec.containers {
        container.args.get_or_insert_default().push("--incoming".to_owned());
    }
    Ok(pod)
}
