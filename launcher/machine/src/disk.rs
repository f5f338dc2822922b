//! Disks of a machine.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A disk the guest sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Disk {
    /// Name of disk and volume in the manifest.
    pub name: String,
    /// Controller it hangs on.
    pub bus: Bus,
    /// Whether it is a CD-ROM drive with a medium.
    #[serde(default)]
    pub cdrom: bool,
    /// Whether the guest may only read it.
    #[serde(default)]
    pub read_only: bool,
    /// Serial number the guest reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Place in the firmware's order over disks and NICs, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_order: Option<u32>,
    /// How writes reach the host's storage.
    #[serde(default)]
    pub cache: Cache,
    /// Where its content comes from.
    pub source: DiskSource,
}

/// The controller a disk hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Bus {
    /// virtio-blk.
    Virtio,
    /// AHCI.
    Sata,
    /// virtio-scsi.
    Scsi,
}

/// How a disk's writes reach the host's storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cache {
    /// Bypasses the host's page cache where the file system can, else behaves as `Writeback`.
    #[default]
    None,
    /// Through the page cache, flushed when the guest flushes.
    Writeback,
    /// Through the page cache, flushed at each write.
    Writethrough,
}

/// Where a disk's content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum DiskSource {
    /// A file that keeps what the guest writes.
    File {
        /// The image.
        path: PathBuf,
    },
    /// A file that stays as it is; writes go to an overlay that ends with the VM.
    Overlay {
        /// The image below.
        path: PathBuf,
    },
    /// An empty disk that ends with the VM.
    Empty {
        /// Its size.
        capacity_bytes: u64,
    },
    /// A cloud-init NoCloud volume, made by the launcher.
    NoCloud(NoCloud),
}

/// The files of a NoCloud volume; the launcher adds `meta-data`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NoCloud {
    /// Content of `user-data`.
    pub user_data: String,
    /// Content of `network-config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_data: Option<String>,
}

impl std::fmt::Debug for NoCloud {
    /// Without the texts, which often hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let network_bytes = self.network_data.as_ref().map(String::len);
        let mut files = f.debug_struct("NoCloud");
        files.field("user_data_bytes", &self.user_data.len()).field("network_data_bytes", &network_bytes).finish()
    }
}
