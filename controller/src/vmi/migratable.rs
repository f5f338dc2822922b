//! Whether an instance could be moved to another node, with KubeVirt's reasons.

use api::translate::Claim;
use wiring::Binding;

use super::claims::Claims;
use super::launch::{Launch, PRIMARY_INTERFACE};
use crate::objects::VirtualMachineInstance;

/// The condition that says so.
pub(crate) const CONDITION: &str = "LiveMigratable";
/// Its reason where nothing about the instance prevents a move, and this release moves none.
const NOT_MOVED: &str = "NotMigratable";
const NOT_MOVED_TEXT: &str =
    "this release moves no running guest: a migration makes its target pod ready and then fails";
const INTERFACE: &str = "InterfaceNotLiveMigratable";
const INTERFACE_TEXT: &str = "cannot migrate VMI which does not use masquerade, bridge with \
    kubevirt.io/allow-pod-bridge-network-live-migration VM annotation or a migratable plugin to connect to the pod network";
/// Annotation of an instance whose pod keeps its address.
const BRIDGE_ALLOWED: &str = "kubevirt.io/allow-pod-bridge-network-live-migration";

/// What about an instance prevents a move: reason and text.
pub(crate) fn obstacle(object: &VirtualMachineInstance, launch: &Launch) -> Option<(&'static str, &'static str)> {
    let is_allowed = object.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(BRIDGE_ALLOWED));
    let is_bridge = |interface: &wiring::Interface| {
        interface.binding == Binding::Bridge && interface.pod_interface.as_str() == PRIMARY_INTERFACE
    };
    let has_bridge = launch.file.wiring.interfaces().iter().any(is_bridge);
    (has_bridge && !is_allowed).then_some((INTERFACE, INTERFACE_TEXT))
}

/// Status, reason and text of the condition.
///
/// `False` is what refuses a migration. Where nothing about the instance prevents a move the status is `Unknown`: a migration
/// is admitted and goes as far as this release can, and evictions, which go by `True`, do not wait for a move.
pub(crate) fn condition(
    object: &VirtualMachineInstance,
    launch: &Launch,
) -> (&'static str, &'static str, &'static str) {
    match obstacle(object, launch) {
        Some((reason, text)) => ("False", reason, text),
        None => ("Unknown", NOT_MOVED, NOT_MOVED_TEXT),
    }
}

/// Which claim two nodes cannot write to at once.
pub(crate) fn unshared(named: &[Claim], known: &Claims) -> Option<String> {
    let is_shared = |claim: &Claim| {
        let modes = known.get(&claim.claim).and_then(|known| known.spec.as_ref()?.access_modes.as_ref());
        modes.is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteMany"))
    };
    let claim = &named.iter().find(|claim| !claim.read_only && !is_shared(claim))?.claim;
    Some(format!(
        "cannot migrate VMI: PVC {claim} is not shared, live migration requires that all PVCs must be shared (using \
         ReadWriteMany access mode)"
    ))
}
