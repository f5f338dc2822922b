//! Disks of a specification become disks of a machine: references are resolved, images become files.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::data::DataSource;
use super::{TranslateContext, TranslateError, claims};
use crate::kubevirt::{self, CloudInitData, DiskDevice, FileSource, Propagation, VirtualMachineInstance, Volume};
use machine::{Content, Disk, DiskFormat, DiskSource, FileSet};

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

/// The Secrets that cloud-init data, SSH keys and passwords of an instance come from, each once.
#[must_use]
pub fn secret_names(instance: &VirtualMachineInstance) -> BTreeSet<&str> {
    let volumes = instance.spec.disks.iter().map(|disk| &disk.volume);
    let data = volumes.flat_map(|volume| match volume {
        Volume::CloudInitNoCloud(cloud_init) | Volume::CloudInitConfigDrive(cloud_init) => {
            [cloud_init.user_data.as_ref(), cloud_init.network_data.as_ref()]
        }
        _ => [None, None],
    });
    let refs = data.flatten().filter_map(|data| match data {
        CloudInitData::SecretRef { name, .. } => Some(name.as_str()),
        CloudInitData::Inline(_) => None,
    });
    let access = &instance.spec.access;
    let passwords = access.passwords.iter().map(|passwords| passwords.secret.as_str());
    refs.chain(access.ssh_keys.iter().map(|keys| keys.secret.as_str())).chain(passwords).collect()
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
                pci: disk.pci,
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
        Volume::CloudInitNoCloud(content) => {
            cloud_init(instance, content, Propagation::NoCloud, context.data).map(DiskSource::NoCloud)
        }
        Volume::CloudInitConfigDrive(content) => {
            cloud_init(instance, content, Propagation::ConfigDrive, context.data).map(DiskSource::ConfigDrive)
        }
        Volume::Files { source, label } => {
            let files = files(instance, &disk.name, source, context.data).map_err(|error| vec![error])?;
            Ok(DiskSource::Files { label: label.clone(), files })
        }
    }
}

fn files(
    instance: &VirtualMachineInstance,
    volume: &str,
    source: &FileSource,
    data: DataSource<'_>,
) -> Result<FileSet, TranslateError> {
    let namespace = instance.metadata.key.namespace();
    let in_pod = |what| {
        let folder = data.folder(volume).map(FileSet::Folder);
        folder.ok_or_else(|| TranslateError::ClusterAlone { path: format!("spec.volumes[{volume}]"), what })
    };
    match source {
        FileSource::Secret(object) => data.secret(namespace, volume, object),
        FileSource::ConfigMap(object) => data.config_map(namespace, volume, object),
        FileSource::ServiceAccount { .. } => in_pod("service accounts"),
        FileSource::DownwardApi(_) => in_pod("fields of a launcher pod"),
    }
}

fn cloud_init(
    instance: &VirtualMachineInstance,
    content: &kubevirt::CloudInit,
    kind: Propagation,
    source: DataSource<'_>,
) -> Result<machine::CloudInit, Vec<TranslateError>> {
    let namespace = instance.metadata.key.namespace();
    let read = |data: &Option<CloudInitData>, keys| match data {
        None => Ok(None),
        Some(CloudInitData::Inline(bytes)) => Ok(Some(Content::Bytes(bytes.clone()))),
        Some(CloudInitData::SecretRef { name, path }) => source.secret_content(namespace, name, keys, path).map(Some),
    };
    let mut errors = Vec::new();
    let user_data = read(&content.user_data, USER_DATA_KEYS).map_err(|error| errors.push(error)).ok();
    let network_data = read(&content.network_data, NETWORK_DATA_KEYS).map_err(|error| errors.push(error)).ok();
    let mut public_keys = Vec::new();
    for keys in instance.spec.access.ssh_keys.iter().filter(|keys| keys.propagation == kind) {
        match source.secret_files(namespace, &keys.secret, &keys.path) {
            Ok(files) => public_keys.push(files),
            Err(error) => errors.push(error),
        }
    }
    match (user_data, network_data, errors) {
        // cloud-init takes an empty user-data for none; without the file it takes no data source at all.
        (Some(user_data), Some(network_data), errors) if errors.is_empty() => {
            Ok(machine::CloudInit { user_data: user_data.unwrap_or_default(), network_data, public_keys })
        }
        (_, _, errors) => Err(errors),
    }
}
