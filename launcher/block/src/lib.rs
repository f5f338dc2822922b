//! Disks: inspects and opens images, and makes the overlays, empty disks, cloud-init volumes and disks of files that end with the VM.
//!
//! Every file is opened here and handed on as a descriptor. Its format is given: a disk's content is the guest's, so nothing
//! concludes a format from it, and nothing follows a name that an image's header holds. Only images that no guest has written
//! to are probed.

pub mod cloud_init;
mod content;
#[cfg(test)]
mod fixtures;
mod iso9660;
mod magic;
mod open;
pub mod path;
mod qcow2;

use std::fs::File;
use std::io;
use std::path::PathBuf;

pub use content::{Files, files_of};
pub use machine::DiskFormat as Format;
pub use open::{Expected, Given, examine, make, open_all, probe};

/// The open files of one disk.
#[derive(Debug)]
pub struct OpenDisk {
    /// What takes the guest's writes.
    pub top: Layer,
    /// What lies below an overlay.
    pub base: Option<Layer>,
}

/// One open image file and how it was opened.
#[derive(Debug)]
pub struct Layer {
    /// The open file; its path may lead elsewhere by now.
    pub file: File,
    /// How it holds the disk.
    pub format: Format,
    /// Whether it was opened for reading alone.
    pub read_only: bool,
    /// Whether it is a block device.
    pub is_device: bool,
    /// Whether it bypasses the host's page cache.
    pub direct: bool,
}

/// Why a disk cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// There is no such file.
    #[error("disk {disk:?}: {path:?} does not exist")]
    Missing {
        /// Name of the disk in the manifest.
        disk: String,
        /// Path of the image.
        path: PathBuf,
    },
    /// The launcher's user may not open it.
    #[error("disk {disk:?}: {path:?} may not be opened for {access} by uid {uid}, gid {gid}")]
    Denied {
        /// Name of the disk in the manifest.
        disk: String,
        /// Path of the image.
        path: PathBuf,
        /// `reading` or `reading and writing`.
        access: &'static str,
        /// The user that tried to open it.
        uid: u32,
        /// The group that tried to open it.
        gid: u32,
    },
    /// Another process has the block device for itself.
    #[error("disk {disk:?}: block device {path:?} is locked: another VM writes to it, or it is mounted")]
    InUse {
        /// Name of the disk in the manifest.
        disk: String,
        /// Path of the device.
        path: PathBuf,
    },
    /// It is a folder, a socket, a pipe, or one that another user may have put there.
    #[error("disk {disk:?}: {path:?} {source}")]
    Refused {
        /// Name of the disk in the manifest.
        disk: String,
        /// Path of the image.
        path: PathBuf,
        /// What the path leads to, or where following it stopped.
        #[source]
        source: path::PathError,
    },
    /// It holds no disk, or one we do not open.
    #[error("disk {disk:?}: {path:?} {flaw}")]
    Unfit {
        /// Name of the disk in the manifest.
        disk: String,
        /// Path of the image.
        path: PathBuf,
        /// What is wrong with it.
        flaw: String,
    },
    /// There is no room for what the launcher makes itself.
    #[error("disk {disk:?}: no space left for {path:?}")]
    NoSpace {
        /// Name of the disk in the manifest.
        disk: String,
        /// The file to be made.
        path: PathBuf,
    },
    /// A system call on the file failed.
    #[error("disk {disk:?}: cannot {what} {path:?}")]
    System {
        /// Name of the disk in the manifest.
        disk: String,
        /// What was tried, as the rest of "cannot …".
        what: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
}
