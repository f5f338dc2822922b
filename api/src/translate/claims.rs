//! PersistentVolumeClaims that a machine's disks are on.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::TranslateError;
use crate::kubevirt::{Disk, VirtualMachineInstance, Volume};
use machine::{DiskFormat, DiskSource};

/// A claim and what it is used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The volume.
    pub volume: String,
    /// Name of the claim, in the namespace of the instance.
    pub claim: String,
    /// Whether nothing is written to it.
    pub read_only: bool,
}

/// Where the launcher finds a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimPlace {
    /// A folder: the claim has a file system.
    Folder {
        /// Its path.
        path: PathBuf,
        /// How much the claim holds.
        capacity_bytes: u64,
    },
    /// A block device.
    Device(PathBuf),
}

/// The disk in a claim with a file system, as KubeVirt names it.
const DISK_FILE: &str = "disk.img";

/// The claims whose places [`super::translate`] asks for.
#[must_use]
pub fn claims(instance: &VirtualMachineInstance) -> Vec<Claim> {
    let claim = |disk: &Disk| {
        let (claim, read_only) = match &disk.volume {
            Volume::PersistentVolumeClaim { claim, read_only } => (claim, *read_only || disk.read_only),
            Volume::Ephemeral { claim } => (claim, true),
            _ => return None,
        };
        Some(Claim { volume: disk.name.clone(), claim: claim.clone(), read_only })
    };
    instance.spec.disks.iter().filter_map(claim).collect()
}

/// The disk on a claim. One that keeps nothing has an overlay, which ends with the VM.
pub(super) fn source(
    disk: &Disk,
    keeps: bool,
    places: Option<&BTreeMap<String, ClaimPlace>>,
) -> Result<DiskSource, TranslateError> {
    let path = || format!("spec.volumes[{}]", disk.name);
    let places = places.ok_or_else(|| TranslateError::NoClaims(path()))?;
    let place = places.get(&disk.name).ok_or_else(|| TranslateError::NoClaim(path()))?;
    Ok(match (place, keeps) {
        (ClaimPlace::Folder { path, capacity_bytes }, true) => {
            DiskSource::Folder { path: path.clone(), capacity_bytes: *capacity_bytes }
        }
        (ClaimPlace::Device(path), true) => DiskSource::File { path: path.clone(), format: DiskFormat::Raw },
        (ClaimPlace::Folder { path, .. }, false) => overlay(path.join(DISK_FILE)),
        (ClaimPlace::Device(path), false) => overlay(path.clone()),
    })
}

/// What other machines wrote is raw, whatever it looks like.
fn overlay(path: PathBuf) -> DiskSource {
    DiskSource::Overlay { path, format: Some(DiskFormat::Raw) }
}
