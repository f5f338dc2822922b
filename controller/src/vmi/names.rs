//! Names in launcher pods that others look for: labels, annotations, a condition, a container.

/// Label whose value is the UID of the instance that a pod runs.
pub(crate) const CREATED_BY: &str = "kubevirt.io/created-by";
/// Label whose value is the name of that instance, or its start and a hash.
pub(crate) const INSTANCE_ID: &str = "vmi.kubevirt.io/id";
/// Label of every launcher pod.
pub(crate) const LAUNCHER_LABEL: (&str, &str) = ("kubevirt.io", "virt-launcher");
/// Label of the target pod of a migration: the migration's UID.
pub(crate) const MIGRATION: &str = "kubevirt.io/migrationJobUID";
/// Annotation with the number of a pod among those made for one instance, from 1.
pub(crate) const ATTEMPT: &str = "tapvisor.io/attempt";
/// The pod condition that keeps a paused guest out of Services.
pub(crate) const UNPAUSED_GATE: &str = "kubevirt.io/virtual-machine-unpaused";
/// Finalizer of a pod that may run a guest: it stays until how its launcher ended is in the instance's status.
pub(crate) const OUTCOME: &str = "tapvisor.io/outcome";
/// The container that runs the guest.
pub(crate) const COMPUTE: &str = "compute";
