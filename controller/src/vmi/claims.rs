//! PersistentVolumeClaims that instances name: where a launcher finds each, and which do not exist.

use std::collections::BTreeMap;
use std::path::Path;

use api::quantity::Quantity;
use api::translate::{Claim, ClaimPlace};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;

/// Where claims with a file system are mounted, each in a folder with its volume's name.
const FOLDERS: &str = "/run/tapvisor-claims";
/// Start of the device nodes of claims of mode Block; the volume's name follows.
const DEVICES: &str = "/dev/tapvisor-claim-";

/// The claims that are known, by name. One that is not known counts as a file system: admission knows none.
pub(crate) type Claims = BTreeMap<String, PersistentVolumeClaim>;

/// Where the launcher finds claims, by volume.
pub(super) fn places(named: &[Claim], known: &Claims) -> BTreeMap<String, ClaimPlace> {
    named.iter().map(|claim| (claim.volume.clone(), place(claim, known.get(&claim.claim)))).collect()
}

/// The annotation of a claim with the phase of the pod that fills it, as CDI, the importer of DataVolumes, writes it.
const FILLING: &str = "cdi.kubevirt.io/storage.pod.phase";

/// Whether a claim is still being filled: what it holds is no disk yet, and another pod writes to it.
pub(crate) fn is_being_filled(claim: &PersistentVolumeClaim) -> bool {
    let annotations = claim.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(FILLING)).is_some_and(|phase| phase != "Succeeded")
}

fn place(claim: &Claim, known: Option<&PersistentVolumeClaim>) -> ClaimPlace {
    let is_block = |claim: &PersistentVolumeClaim| {
        claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()) == Some("Block")
    };
    if known.is_some_and(is_block) {
        return ClaimPlace::Device(format!("{DEVICES}{}", claim.volume).into());
    }
    let capacity_bytes = known.and_then(capacity).unwrap_or_default();
    ClaimPlace::Folder { path: Path::new(FOLDERS).join(&claim.volume), capacity_bytes }
}

/// What a claim holds; before it is bound, what it asks for.
fn capacity(claim: &PersistentVolumeClaim) -> Option<u64> {
    let bound = claim.status.as_ref().and_then(|status| status.capacity.as_ref()?.get("storage"));
    let asked = || claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage");
    bound.or_else(asked)?.0.parse::<Quantity>().ok()?.rounded_up()
}
