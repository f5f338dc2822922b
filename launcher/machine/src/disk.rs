//! Disks of a machine.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::base64::{decode, encode};
use crate::pci::PciAddress;

/// A disk the guest sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Disk {
    /// Name of disk and volume in the manifest.
    pub name: String,
    /// The controller that it hangs on (`disk.bus` in KubeVirt).
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
    /// The place of a virtio disk on the PCI buses, if it is not to be the next that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci: Option<PciAddress>,
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
    /// A virtio-blk device.
    Virtio,
    /// A port of an AHCI controller.
    Sata,
    /// A LUN of a virtio-scsi controller.
    Scsi,
    /// A port of an xHCI controller.
    Usb,
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
        /// The image, or a folder with this one file.
        path: PathBuf,
        /// How it holds the disk. Never found out from the content, which the guest writes.
        format: DiskFormat,
    },
    /// A file that stays as it is; writes go to an overlay that ends with the VM.
    Overlay {
        /// The image below, or a folder with this one file: `/disk` of a containerDisk that is mounted as an image volume.
        path: PathBuf,
        /// How it holds the disk. Without it, and for the file of a folder, the launcher looks at the file: only for images
        /// that no guest has written to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        format: Option<DiskFormat>,
    },
    /// A folder with the raw disk `disk.img`, which keeps what the guest writes and is made where there is none.
    Folder {
        /// Path of the folder that holds `disk.img`.
        path: PathBuf,
        /// Its size: that of a disk to make, unless the file system has less room.
        capacity_bytes: u64,
    },
    /// An empty disk that ends with the VM.
    Empty {
        /// Size of the disk.
        capacity_bytes: u64,
    },
    /// A cloud-init NoCloud volume, made by the launcher.
    NoCloud(CloudInit),
    /// A cloud-init ConfigDrive volume, made by the launcher.
    ConfigDrive(CloudInit),
    /// An ISO 9660 file system, made by the launcher.
    Files {
        /// Volume identifier of the file system.
        label: String,
        /// The files in it.
        files: FileSet,
    },
}

/// How a file holds a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DiskFormat {
    /// The bytes of the disk as they are, without a header.
    Raw,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
}

impl fmt::Display for DiskFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        })
    }
}

/// A disk's file and how it holds the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskFile {
    /// Path of the image.
    pub path: PathBuf,
    /// How it holds the disk; `None` where the launcher finds it out.
    pub format: Option<DiskFormat>,
}

/// The content of a cloud-init volume; the launcher adds the metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CloudInit {
    /// cloud-init user data, verbatim; empty if the manifest has none.
    pub user_data: Content,
    /// cloud-init network configuration; `None` leaves the network to cloud-init.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_data: Option<Content>,
    /// SSH keys that the guest's default user accepts, one in each file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub public_keys: Vec<FileSet>,
}

/// The largest image that a launcher makes of a [`FileSet`].
pub const MAX_FILES_BYTES: u64 = 16 << 20;

/// Files that the launcher reads when the VM starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub enum FileSet {
    /// All files in this folder and below it: a ConfigMap, a Secret or the like, mounted in the pod.
    Folder(PathBuf),
    /// These files, by their name in the volume.
    Listed(BTreeMap<String, Content>),
}

/// Content of a file, or where the launcher reads it.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// These bytes. In JSON they are a string where they are UTF-8, else `{"base64": "…"}`.
    Bytes(Vec<u8>),
    /// What the first of these files holds that exists when the VM starts: keys of a Secret that is mounted in the pod. In
    /// JSON `{"firstOf": ["/path", …]}`.
    FirstOf(Vec<PathBuf>),
}

impl Default for Content {
    fn default() -> Self {
        Self::Bytes(Vec::new())
    }
}

impl fmt::Debug for Content {
    /// Without the bytes, which often hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Content({} bytes)", bytes.len()),
            Self::FirstOf(paths) => write!(f, "Content(first of {paths:?})"),
        }
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::Bytes(text.into())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
enum Encoded {
    Base64(String),
    FirstOf(Vec<PathBuf>),
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = match self {
            Self::Bytes(bytes) => bytes,
            Self::FirstOf(paths) => return Encoded::FirstOf(paths.clone()).serialize(serializer),
        };
        match std::str::from_utf8(bytes) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Encoded::Base64(encode(bytes)).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Encoded(Encoded),
        }
        match Written::deserialize(deserializer)? {
            Written::Text(text) => Ok(Self::Bytes(text.into_bytes())),
            Written::Encoded(Encoded::Base64(text)) => {
                decode(&text).map(Self::Bytes).ok_or_else(|| D::Error::custom("base64: is no base64"))
            }
            Written::Encoded(Encoded::FirstOf(paths)) => Ok(Self::FirstOf(paths)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: DISK-7
    #[test]
    fn any_bytes_are_read_as_they_were_written() {
        for bytes in [&b""[..], b"#cloud-config\n", b"\x1f\x8b\x08\0", b"\xff", b"\xff\xfe", b"\xff\xfe\xfd"] {
            let content = Content::Bytes(bytes.to_vec());
            let text = serde_json::to_string(&content).unwrap();
            assert_eq!(serde_json::from_str::<Content>(&text).unwrap(), content, "{text}");
        }
        assert_eq!(serde_json::to_string(&Content::from("text")).unwrap(), "\"text\"");
        assert_eq!(serde_json::to_string(&Content::Bytes(vec![0x1f, 0x8b])).unwrap(), "{\"base64\":\"H4s=\"}");
        let files = Content::FirstOf(vec!["/a".into(), "/b".into()]);
        let text = serde_json::to_string(&files).unwrap();
        assert_eq!(text, "{\"firstOf\":[\"/a\",\"/b\"]}");
        assert_eq!(serde_json::from_str::<Content>(&text).unwrap(), files);
    }
}
