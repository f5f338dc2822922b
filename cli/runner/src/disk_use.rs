//! A disk that a guest writes to is one VM's at a time: found out before anything is made.

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use block::path;
use machine::{DiskSource, Machine};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use terms::ObjectKey;

use super::record::OnHost;
use super::store::{Store, StoreError};

/// Why a disk cannot be used now.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskUseError {
    /// Another VM uses the file, and one of the two writes to it.
    #[error(
        "{key}: volume {volume}: {path} is in use by VM {user} as its volume {other}, and a disk that is written to is for one VM"
    )]
    Taken {
        /// The VM to be started.
        key: ObjectKey,
        /// Name of its volume in the manifest.
        volume: String,
        /// Path of the disk's file.
        path: PathBuf,
        /// The VM that has it.
        user: ObjectKey,
        /// Name of that VM's volume in the manifest.
        other: String,
    },
    /// A program that is no VM of ours has it.
    #[error(
        "{key}: volume {volume}: {path} is in use by another program, which has locked it as QEMU locks the disks of a running VM"
    )]
    Locked {
        /// The VM to be started.
        key: ObjectKey,
        /// Name of its volume in the manifest.
        volume: String,
        /// Path of the disk's file.
        path: PathBuf,
    },
    /// The records of VMs cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a path leads to, by whatever path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Identity {
    File(u64, u64),
    Device(u64),
    /// Nothing exists there: a disk to be made.
    Absent(PathBuf),
}

#[derive(Debug)]
struct DiskUse {
    key: ObjectKey,
    volume: String,
    path: PathBuf,
    identity: Identity,
    writes: bool,
}

/// Refuses VMs whose disks are in use: by one another, by VMs that are on the host, by other programs.
///
/// # Errors
/// The first disk in use, and by whom.
pub(crate) fn expect_free(store: &Store, starting: &[(&ObjectKey, &Machine)]) -> Result<(), Box<DiskUseError>> {
    let own = store.layout().own_folders();
    let wanted: Vec<_> = starting.iter().flat_map(|(key, machine)| uses(key, machine, &own)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let mut taken = Vec::new();
    let are_starting: BTreeSet<_> = starting.iter().map(|(key, _)| *key).collect();
    let known = store.keys().map_err(DiskUseError::from)?;
    for key in known.iter().filter(|key| !are_starting.contains(key)) {
        // What cannot be read is reported by other commands, and its guest's QEMU holds its locks.
        if let (Ok(status), Ok(launch)) = (store.status(key), store.machine(key))
            && status.on_host == OnHost::Present
        {
            taken.extend(uses(key, &launch.machine, &own));
        }
    }
    for (index, disk) in wanted.iter().enumerate() {
        let others = taken.iter().chain(wanted.get(..index).unwrap_or_default());
        if let Some(other) = others.into_iter().find(|other| disk.excludes(other)) {
            return Err(Box::new(DiskUseError::Taken {
                key: disk.key.clone(),
                volume: disk.volume.clone(),
                path: disk.path.clone(),
                user: other.key.clone(),
                other: other.volume.clone(),
            }));
        }
        if path::open(&disk.path, false, &own).is_ok_and(|file| is_locked(&file, disk.writes)) {
            let (key, volume, path) = (disk.key.clone(), disk.volume.clone(), disk.path.clone());
            return Err(Box::new(DiskUseError::Locked { key, volume, path }));
        }
    }
    Ok(())
}

/// The disks that a VM has in place; overlays and what ends with it are its own.
fn uses(key: &ObjectKey, machine: &Machine, own: &[&Path]) -> Vec<DiskUse> {
    let disk_use = |disk: &machine::Disk| {
        let DiskSource::File { path, .. } = &disk.source else { return None };
        // One that may not be looked at is refused when it is opened.
        let identity = path::examine(path, own).ok()?.map_or_else(|| Identity::Absent(path.clone()), identity);
        let (key, volume, path, writes) = (key.clone(), disk.name.clone(), path.clone(), !disk.read_only);
        Some(DiskUse { key, volume, path, identity, writes })
    };
    machine.disks.iter().filter_map(disk_use).collect()
}

fn identity(found: Metadata) -> Identity {
    match found.file_type().is_block_device() {
        true => Identity::Device(found.rdev()),
        false => Identity::File(found.dev(), found.ino()),
    }
}

impl DiskUse {
    fn excludes(&self, other: &Self) -> bool {
        self.identity == other.identity && (self.writes || other.writes)
    }
}

/// Whether a QEMU has locks on the file that exclude us. It locks one byte for each thing it does to an image, from 100 on,
/// and one for each that it does not share, from 200 on (QEMU's block/file-posix.c): writing is 1, resizing 3.
fn is_locked(file: &File, writes: bool) -> bool {
    const WRITE: libc::off_t = 1;
    const RESIZE: libc::off_t = 3;
    const DOES: libc::off_t = 100;
    const KEEPS: libc::off_t = 200;
    let is_taken = |byte: libc::off_t| {
        let mut lock = libc::flock {
            l_type: kind(libc::F_WRLCK),
            l_whence: kind(libc::SEEK_SET),
            l_start: byte,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)).is_ok() && lock.l_type != kind(libc::F_UNLCK)
    };
    [DOES + WRITE, DOES + RESIZE].into_iter().any(is_taken)
        || writes && [KEEPS + WRITE, KEEPS + RESIZE].into_iter().any(is_taken)
}

/// The kernel's constants are of a wider type than the fields they are for.
fn kind(constant: libc::c_int) -> libc::c_short {
    libc::c_short::try_from(constant).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use machine::{Bus, Cache, Disk, DiskFormat};

    use super::*;
    use crate::fixtures::key;
    use crate::layout::Layout;

    fn machine(path: &Path, read_only: bool) -> Machine {
        let disk = Disk {
            name: "root".into(),
            bus: Bus::Virtio,
            cdrom: false,
            read_only,
            serial: None,
            boot_order: None,
            pci: None,
            cache: Cache::Writeback,
            source: DiskSource::File { path: path.into(), format: DiskFormat::Raw },
        };
        let text = include_str!("../../../launcher/machine/fixtures/web.json");
        Machine { disks: vec![disk], ..serde_json::from_str(text).unwrap() }
    }

    // spec: DISK-5
    #[test]
    fn two_vms_do_not_share_a_disk_unless_both_only_read_it() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(Layout::below(root.path()));
        let (one, two) = (root.path().join("disk.img"), root.path().join("link.img"));
        std::fs::write(&one, [0; 512]).unwrap();
        std::fs::hard_link(&one, &two).unwrap();
        let (a, b) = (key("a"), key("b"));
        let check = |first: &Machine, second: &Machine| expect_free(&store, &[(&a, first), (&b, second)]);
        let error = check(&machine(&one, false), &machine(&two, true)).unwrap_err().to_string();
        let expected =
            format!("default/b: volume root: {} is in use by VM default/a as its volume root", two.display());
        assert!(error.starts_with(&expected), "{error}");
        check(&machine(&one, true), &machine(&two, true)).unwrap();
        let absent = root.path().join("absent.img");
        assert!(check(&machine(&absent, false), &machine(&absent, false)).is_err());
        check(&machine(&absent, false), &machine(&one, false)).unwrap();
    }

    // spec: DISK-5
    #[test]
    fn a_disk_that_a_qemu_of_another_tool_has_open_is_in_use() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(Layout::below(root.path()));
        let path = root.path().join("disk.img");
        std::fs::write(&path, [0; 4096]).unwrap();
        let (a, mine) = (key("a"), machine(&path, false));
        expect_free(&store, &[(&a, &mine)]).unwrap();
        let mut other = Command::new("qemu-io");
        other.args(["-f", "raw", "-c", "read 0 512"]).arg(&path);
        let mut other = other.args(["-c", "sleep 60000"]).stdout(Stdio::null()).spawn().unwrap();
        // It takes its time to open the image.
        let mut tries = (0..1000).map(|_| expect_free(&store, &[(&a, &mine)]));
        let error = tries.find_map(|free| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            free.err()
        });
        other.kill().unwrap();
        other.wait().unwrap();
        let error = error.unwrap().to_string();
        assert!(error.contains("is in use by another program"), "{error}");
        expect_free(&store, &[(&a, &mine)]).unwrap();
    }
}
