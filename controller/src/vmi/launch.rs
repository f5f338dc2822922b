//! What an instance asks for, read strictly: the launch file, the wiring request and the networks of its pod.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::kubevirt::Volume;
use api::manifest::Body;
use api::translate::{
    BindingPlugins, ClaimPlace, DataSource, ImageFiles, ImageUse, TranslateContext, Translation, claims as claims_of,
    container_images, translate,
};
use machine::{DiskFile, Emulation};
use protocol::launch_file::LaunchFile;
use wiring::Owner;

use super::claims::{Claims, places};
use crate::config::ClusterConfig;
use crate::manifest;
use crate::objects::VirtualMachineInstance;

/// The pod's first interface, as every container runtime names it.
pub(crate) const PRIMARY_INTERFACE: &str = "eth0";
/// User and group of the launcher in a pod.
pub(crate) const LAUNCHER_ID: u32 = 107;
/// Where the image of each container disk is mounted, in a folder with the volume's name.
pub(crate) const DISKS: &str = "/run/tapvisor-disks";
/// Where the image with kernel and initial RAM disk is mounted.
pub(crate) const KERNEL: &str = "/run/tapvisor-kernel";
/// Where each Secret with cloud-init data is mounted, in a folder with the Secret's name.
pub(crate) const SECRETS: &str = "/run/tapvisor-secrets";
/// Where each volume that is files is mounted, in a folder with the volume's name.
pub(crate) const FILES: &str = "/run/tapvisor-files";
/// Longest launch file: a Secret holds 1 MiB.
const MAX_FILE: usize = 1 << 20;
/// The folder of a container disk's image that holds its only file.
pub(crate) const DISK_FOLDER: &str = "/disk";

/// A valid instance and what the launcher needs for it.
#[derive(Debug)]
pub(crate) struct Launch {
    /// The instance as `api` reads it.
    pub(crate) instance: api::kubevirt::VirtualMachineInstance,
    /// Networks and wiring request.
    pub(crate) translation: Translation,
    /// What the launcher reads.
    pub(crate) file: LaunchFile,
    /// Where it finds PersistentVolumeClaims, by volume.
    pub(crate) places: BTreeMap<String, ClaimPlace>,
}

/// An instance that was read.
#[derive(Debug)]
pub(crate) struct Reading {
    /// The launch, or everything that is wrong, each with its path.
    pub(crate) launch: Result<Launch, Vec<String>>,
    /// Fields without effect, each with its path and the reason.
    pub(crate) warnings: Vec<String>,
}

/// Reads an instance as this cluster would run it, with claims of which nothing is known.
pub(crate) fn read(object: &VirtualMachineInstance, config: &ClusterConfig) -> Reading {
    read_with(object, &Claims::new(), config)
}

/// Reads an instance as this cluster would run it.
pub(crate) fn read_with(object: &VirtualMachineInstance, claims: &Claims, config: &ClusterConfig) -> Reading {
    let manifest::Read { body, warnings } =
        manifest::read("VirtualMachineInstance", &object.metadata, &object.spec.fields);
    let launch = match body {
        Ok(Body::VirtualMachineInstance(instance)) => launch(object, instance, claims, config),
        Ok(_) => Err(vec!["kind: must be VirtualMachineInstance".to_owned()]),
        Err(complaints) => Err(complaints),
    };
    Reading { launch, warnings }
}

fn launch(
    object: &VirtualMachineInstance,
    instance: api::kubevirt::VirtualMachineInstance,
    claims: &Claims,
    config: &ClusterConfig,
) -> Result<Launch, Vec<String>> {
    let refused = refused_in_a_cluster(&instance);
    if !refused.is_empty() {
        return Err(refused);
    }
    let images = image_files(&instance);
    let places = places(&claims_of(&instance), claims);
    let primary_interface = PRIMARY_INTERFACE.parse().map_err(|error: terms::Invalid| vec![error.to_string()])?;
    let context = TranslateContext {
        data: DataSource::Mounted { secrets: Path::new(SECRETS), files: Path::new(FILES) },
        images: &images,
        claims: Some(&places),
        owner: Owner { uid: LAUNCHER_ID, gid: LAUNCHER_ID },
        engine: None,
        emulation: if config.use_emulation { Emulation::Required } else { Emulation::Forbidden },
        primary_interface,
        vm_uid: vm_uid(object),
        bindings: config.bindings.as_ref().map_or(BindingPlugins::Unknown, BindingPlugins::Known),
        has_mesh_sidecar: true,
    };
    let translation =
        translate(&instance, &context).map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let file = LaunchFile::new(translation.machine.clone(), translation.wiring.clone());
    let bytes = serde_json::to_vec(&file).map_err(|error| vec![error.to_string()])?.len();
    if bytes > MAX_FILE {
        return Err(vec![format!(
            "spec: makes a launch file of {bytes} bytes, at most {MAX_FILE} fit into its Secret: name a Secret with cloud-init data by secretRef"
        )]);
    }
    Ok(Launch { instance, translation, file, places })
}

/// UID of the VirtualMachine that owns the instance, which outlives it; without one the instance's own.
fn vm_uid(object: &VirtualMachineInstance) -> Option<&str> {
    let owners = object.metadata.owner_references.iter().flatten();
    let mut vm = owners.filter(|owner| owner.controller == Some(true) && owner.kind == "VirtualMachine");
    vm.next().map(|owner| owner.uid.as_str()).or(object.metadata.uid.as_deref())
}

/// What is possible on one machine and not in a launcher pod.
fn refused_in_a_cluster(instance: &api::kubevirt::VirtualMachineInstance) -> Vec<String> {
    let mut refused = Vec::new();
    for disk in &instance.spec.disks {
        if let Volume::HostDisk { .. } = &disk.volume {
            refused.push(format!(
                "spec.volumes[{}].hostDisk: not supported: the Pod Security Standard restricted allows no file of the node",
                disk.name
            ));
        }
    }
    refused
}

/// Where the files of container images are in the pod. For a disk without a path it is a folder: the launcher takes the
/// only file in it. The launcher finds out how the file holds the disk.
fn image_files(instance: &api::kubevirt::VirtualMachineInstance) -> ImageFiles {
    let mut files = ImageFiles::default();
    for image in container_images(instance) {
        match image.usage {
            ImageUse::Disk { volume, path } => {
                let path = below(&Path::new(DISKS).join(&volume), path.as_deref().unwrap_or(DISK_FOLDER));
                files.disks.insert(volume, DiskFile { format: None, path });
            }
            ImageUse::KernelBoot { kernel, initrd } => {
                files.kernel = Some(below(Path::new(KERNEL), &kernel));
                files.initrd = initrd.map(|initrd| below(Path::new(KERNEL), &initrd));
            }
        }
    }
    files
}

fn below(mount: &Path, inside: &str) -> PathBuf {
    mount.join(inside.trim_start_matches('/'))
}
