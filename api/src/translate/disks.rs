//! Disks of a specification become disks of a machine: references are resolved, images become files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use terms::ObjectKey;

use super::{TranslateContext, TranslateError, claims};
use crate::kubevirt::{self, CloudInit, CloudInitData, DiskDevice, VirtualMachineInstance, Volume};
use crate::secret::Secret;
use machine::{Content, Disk, DiskFormat, DiskSource, NoCloud};

/// Secrets by namespace and name.
pub type Secrets = BTreeMap<ObjectKey, Secret>;

/// A disk image on the host that is made, empty and sparse, if it is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HostFile {
    /// The volume.
    pub volume: String,
    /// Where it is.
    pub path: PathBuf,
    /// The disk's size.
    pub capacity_bytes: u64,
    /// How it holds the disk.
    pub format: DiskFormat,
}

/// How Secrets reach the guest.
#[derive(Debug, Clone, Copy)]
pub enum SecretSource<'a> {
    /// Their data is known here.
    Read(&'a Secrets),
    /// The launcher finds each in a folder of its name below this one.
    Mounted(&'a Path),
}

/// The Secrets that an instance's volumes name, each once.
#[must_use]
pub fn secret_names(instance: &VirtualMachineInstance) -> BTreeSet<&str> {
    let volumes = instance.spec.disks.iter().map(|disk| &disk.volume);
    let data = volumes.flat_map(|volume| match volume {
        Volume::CloudInitNoCloud(cloud_init) => [cloud_init.user_data.as_ref(), cloud_init.network_data.as_ref()],
        _ => [None, None],
    });
    let refs = data.flatten().filter_map(|data| match data {
        CloudInitData::SecretRef { name, .. } => Some(name.as_str()),
        CloudInitData::Inline(_) => None,
    });
    refs.collect()
}

/// The keys under which KubeVirt looks for cloud-init data in a Secret, first come first served.
const USER_DATA_KEYS: [&str; 2] = ["userdata", "userData"];
const NETWORK_DATA_KEYS: [&str; 2] = ["networkdata", "networkData"];

pub(super) fn translate(
    instance: &VirtualMachineInstance,
    context: &TranslateContext<'_>,
    errors: &mut Vec<TranslateError>,
) -> Vec<Disk> {
    let mut disks = Vec::new();
    for disk in &instance.spec.disks {
        match source(instance, disk, context) {
            Ok(source) => disks.push(Disk {
                name: disk.name.clone(),
                bus: disk.bus,
                cdrom: disk.device == DiskDevice::Cdrom,
                read_only: disk.read_only
                    || matches!(disk.volume, Volume::PersistentVolumeClaim { read_only: true, .. }),
                serial: disk.serial.clone(),
                boot_order: disk.boot_order,
                cache: disk.cache,
                source,
            }),
            Err(found) => errors.extend(found),
        }
    }
    disks
}

/// The files to make before the start where there are none yet; the launcher has no right to make them.
pub(super) fn host_files(instance: &VirtualMachineInstance) -> Vec<HostFile> {
    let file = |disk: &kubevirt::Disk| match &disk.volume {
        Volume::HostDisk { path, create_bytes: Some(bytes), format, .. } => {
            let (volume, path) = (disk.name.clone(), path.clone());
            Some(HostFile { volume, path, capacity_bytes: *bytes, format: *format })
        }
        _ => None,
    };
    instance.spec.disks.iter().filter_map(file).collect()
}

fn source(
    instance: &VirtualMachineInstance,
    disk: &kubevirt::Disk,
    context: &TranslateContext<'_>,
) -> Result<DiskSource, Vec<TranslateError>> {
    match &disk.volume {
        Volume::ContainerDisk { .. } => {
            let file = context.images.disks.get(&disk.name);
            let file = file.ok_or_else(|| vec![TranslateError::NoImageFile(format!("volume {}", disk.name))])?;
            Ok(DiskSource::Overlay { path: file.path.clone(), format: file.format })
        }
        Volume::EmptyDisk { capacity_bytes } => Ok(DiskSource::Empty { capacity_bytes: *capacity_bytes }),
        Volume::HostDisk { path, format, .. } => Ok(DiskSource::File { path: path.clone(), format: *format }),
        Volume::PersistentVolumeClaim { .. } => claims::source(disk, true, context.claims).map_err(|error| vec![error]),
        Volume::Ephemeral { .. } => claims::source(disk, false, context.claims).map_err(|error| vec![error]),
        Volume::CloudInitNoCloud(cloud_init) => no_cloud(instance, cloud_init, context.secrets),
    }
}

fn no_cloud(
    instance: &VirtualMachineInstance,
    cloud_init: &CloudInit,
    secrets: SecretSource<'_>,
) -> Result<DiskSource, Vec<TranslateError>> {
    let read = |data: &Option<CloudInitData>, keys| match data {
        None => Ok(None),
        Some(CloudInitData::Inline(bytes)) => Ok(Some(Content::Bytes(bytes.clone()))),
        Some(CloudInitData::SecretRef { name, path }) => match secrets {
            SecretSource::Read(secrets) => {
                from_secret(instance.metadata.key.namespace(), name, keys, path, secrets).map(Some)
            }
            SecretSource::Mounted(folder) => {
                Ok(Some(Content::FirstOf(keys.map(|key| folder.join(name).join(key)).into())))
            }
        },
    };
    match (read(&cloud_init.user_data, USER_DATA_KEYS), read(&cloud_init.network_data, NETWORK_DATA_KEYS)) {
        // cloud-init takes an empty user-data for none; without the file it takes no data source at all.
        (Ok(user_data), Ok(network_data)) => {
            Ok(DiskSource::NoCloud(NoCloud { user_data: user_data.unwrap_or_default(), network_data }))
        }
        (user_data, network_data) => Err(user_data.err().into_iter().chain(network_data.err()).collect()),
    }
}

fn from_secret(
    namespace: &str,
    name: &str,
    keys: [&'static str; 2],
    path: &str,
    secrets: &Secrets,
) -> Result<Content, TranslateError> {
    let (path, full_name) = (path.to_owned(), format!("{namespace}/{name}"));
    let secret = ObjectKey::new(namespace, name).ok().and_then(|key| secrets.get(&key));
    let Some(secret) = secret else { return Err(TranslateError::NoSecret { path, secret: full_name }) };
    let bytes = keys.iter().find_map(|key| secret.data.get(*key));
    let bytes = bytes.ok_or(TranslateError::SecretContent { path, secret: full_name, key: keys[0] })?;
    Ok(Content::Bytes(bytes.clone()))
}
