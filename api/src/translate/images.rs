//! Container images that a machine needs files of.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::kubevirt::{ImagePullPolicy, VirtualMachineInstance, Volume};
use machine::DiskFile;

/// A container image and what is taken from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerImage {
    /// Image reference.
    pub image: String,
    /// When it is pulled.
    pub pull_policy: ImagePullPolicy,
    /// Name of the Secret to pull it with.
    pub pull_secret: Option<String>,
    /// What is taken from it.
    pub usage: ImageUse,
}

/// What is taken from a container image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageUse {
    /// A disk image.
    Disk {
        /// The volume.
        volume: String,
        /// Its path in the image; without it the only file in `/disk`.
        path: Option<String>,
    },
    /// A kernel to boot.
    KernelBoot {
        /// The kernel's path in the image.
        kernel: String,
        /// The initial RAM disk's path in the image.
        initrd: Option<String>,
    },
}

/// Where the files of container images lie: absolute paths that the launcher may read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageFiles {
    /// Disk images by volume.
    pub disks: BTreeMap<String, DiskFile>,
    /// The kernel.
    pub kernel: Option<PathBuf>,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
}

/// The images whose files [`super::translate`] asks for.
#[must_use]
pub fn container_images(instance: &VirtualMachineInstance) -> Vec<ContainerImage> {
    let kernel = instance.spec.firmware.kernel_boot.as_ref().map(|boot| ContainerImage {
        image: boot.container.image.clone(),
        pull_policy: boot.container.pull_policy,
        pull_secret: boot.container.pull_secret.clone(),
        usage: ImageUse::KernelBoot {
            kernel: boot.container.kernel_path.clone(),
            initrd: boot.container.initrd_path.clone(),
        },
    });
    let disks = instance.spec.disks.iter().filter_map(|disk| match &disk.volume {
        Volume::ContainerDisk { image, pull_policy, pull_secret, path } => Some(ContainerImage {
            image: image.clone(),
            pull_policy: *pull_policy,
            pull_secret: pull_secret.clone(),
            usage: ImageUse::Disk { volume: disk.name.clone(), path: path.clone() },
        }),
        _ => None,
    });
    kernel.into_iter().chain(disks).collect()
}
