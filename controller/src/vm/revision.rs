//! ControllerRevisions: the spec that a machine had when it was started, which decides whether it needs a restart.

use k8s_openapi::api::apps::v1::ControllerRevision;
use serde_json::{Value, json};

use super::instance::owner;
use super::object::VirtualMachine;

/// Label of a revision: UID of the machine. The controller watches only revisions that have it.
pub(super) const REVISION_OF: &str = "tapvisor.io/vm-uid";

/// Start of the names of revisions of starts.
pub(super) const OF_START: &str = "revision-start-vm-";

/// Name of the revision of a start, as KubeVirt's clients look for it.
pub(super) fn name(vm: &VirtualMachine) -> String {
    let (uid, generation) = (vm.metadata.uid.as_deref().unwrap_or_default(), vm.metadata.generation);
    format!("{OF_START}{uid}-{}", generation.unwrap_or_default())
}

/// The revision of a start now.
///
/// # Errors
/// A defect of this module: the shape is not a revision's.
pub(super) fn revision(vm: &VirtualMachine) -> Result<ControllerRevision, serde_json::Error> {
    serde_json::from_value(json!({
        "metadata": {
            "name": name(vm),
            "namespace": vm.metadata.namespace,
            "labels": {REVISION_OF: vm.metadata.uid},
            "ownerReferences": [owner(vm)],
        },
        "data": {"spec": vm.spec},
        "revision": vm.metadata.generation.unwrap_or_default(),
    }))
}

/// The spec that was started.
pub(super) fn spec(revision: &ControllerRevision) -> Option<&Value> {
    revision.data.as_ref()?.0.get("spec")
}
