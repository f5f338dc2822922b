//! The instance of a machine, as data: its template under the machine's name.

use serde_json::{Value, json};

use super::object::VirtualMachine;
use crate::objects::VirtualMachineInstance;

/// Keeps an instance until its end is recorded in the machine's status, and a machine until its instance is gone.
pub(crate) const FINALIZER: &str = "kubevirt.io/virtualMachineControllerFinalize";
/// Annotation of an instance: the generation of the machine that it runs.
pub(super) const GENERATION: &str = "kubevirt.io/vm-generation";

/// The instance that a start makes.
///
/// # Errors
/// The template is not that of an instance.
pub(super) fn instance(
    vm: &VirtualMachine,
    is_paused: bool,
    revision: &str,
) -> Result<VirtualMachineInstance, serde_json::Error> {
    let template = vm.spec.fields.get("template").cloned().unwrap_or_default();
    let mut annotations = template["metadata"]["annotations"].clone();
    if !annotations.is_object() {
        annotations = json!({});
    }
    annotations[GENERATION] = json!(vm.metadata.generation.unwrap_or_default().to_string());
    let mut spec = template["spec"].clone();
    if is_paused && spec.is_object() {
        spec["startStrategy"] = json!("Paused");
    }
    serde_json::from_value(json!({
        "metadata": {
            "name": vm.metadata.name,
            "namespace": vm.metadata.namespace,
            "labels": template["metadata"]["labels"],
            "annotations": annotations,
            "finalizers": [FINALIZER],
            "ownerReferences": [owner(vm)],
        },
        "spec": spec,
        "status": {"virtualMachineRevisionName": revision},
    }))
}

/// The reference by which the machine owns an object.
pub(super) fn owner(vm: &VirtualMachine) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "name": vm.metadata.name,
        "uid": vm.metadata.uid,
        "controller": true,
        "blockOwnerDeletion": true,
    })
}
