//! Folders for disks that end with their VM, below `/var/cache`: a tmpfs would hold them in memory.
//!
//! `/run` is empty after a reboot and this folder is not, and several `/run`s may share it. So a folder is in use as long
//! as its supervisor holds a lock on it, and a process that gets the lock may remove it.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown};
use std::path::Path;

use terms::ContainerId;
use wiring::Owner;

use super::files::{self, FileError, at};

/// Attempts to lock a new folder: a sweep by another process may remove it first.
const ATTEMPTS: usize = 10;

/// Makes a folder for the launcher and holds it as long as the result is open.
///
/// # Errors
/// When the system refuses.
pub(crate) fn claim(scratch: &Path, id: &ContainerId, owner: Owner) -> Result<File, FileError> {
    let path = scratch.join(id.as_str());
    let mut result = Err(FileError::NotAFile { path: path.clone() });
    for _ in 0..ATTEMPTS {
        // Others may pass through, to folders they know by name, and not look around.
        files::make_dir(scratch, 0o711)?;
        match fs::create_dir(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(at("make folder", &path)(error));
            }
            _ => {}
        }
        result = File::open(&path).map_err(at("open", &path));
        if let Ok(folder) = &result
            && folder.try_lock().is_ok()
            && is_at(folder, &path)
        {
            chown(&path, Some(owner.uid), Some(owner.gid)).map_err(at("set the owner of", &path))?;
            files::make_dir(&path, 0o700)?;
            break;
        }
    }
    result
}

/// Removes a VM's folder, locked or not.
///
/// # Errors
/// When the system refuses.
pub(crate) fn remove(scratch: &Path, id: &ContainerId) -> Result<(), FileError> {
    files::remove_dir(&scratch.join(id.as_str()))
}

/// Removes unlocked folders: of supervisors that were killed, and of those before the last reboot. One that cannot be
/// removed is a warning in the log and stops no other VM.
///
/// # Errors
/// When the folders cannot be listed.
pub(crate) fn sweep(scratch: &Path) -> Result<(), FileError> {
    for path in files::entries(scratch)? {
        let folder =
            File::options().read(true).custom_flags(nix::libc::O_DIRECTORY | nix::libc::O_NOFOLLOW).open(&path);
        if folder.is_ok_and(|folder| folder.try_lock().is_ok())
            && let Err(error) = files::remove_dir(&path)
        {
            tracing::warn!(error = %super::chain(&error), "a folder of an ended VM cannot be removed");
        }
    }
    Ok(())
}

fn is_at(folder: &File, path: &Path) -> bool {
    let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    matches!((folder.metadata().map(id), fs::metadata(path).map(id)), (Ok(ours), Ok(there)) if ours == there)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::owner;

    #[test]
    fn a_folder_is_swept_when_no_process_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = dir.path().join("scratch");
        let (one, two) = ("one".parse().unwrap(), "two".parse().unwrap());
        let held = claim(&scratch, &one, owner()).unwrap();
        drop(claim(&scratch, &two, owner()).unwrap());
        fs::write(scratch.join("two/root.qcow2"), "x").unwrap();
        sweep(&scratch).unwrap();
        assert_eq!(files::entries(&scratch).unwrap(), [scratch.join("one")]);
        drop(held);
        sweep(&scratch).unwrap();
        assert!(files::entries(&scratch).unwrap().is_empty());
    }

    // spec: DISK-6
    #[test]
    fn what_cannot_be_removed_stops_no_command_for_others() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = dir.path().join("scratch");
        let (one, two) = ("one".parse().unwrap(), "two".parse().unwrap());
        drop(claim(&scratch, &one, owner()).unwrap());
        drop(claim(&scratch, &two, owner()).unwrap());
        // What is mounted cannot be removed, not even by root.
        let mount =
            std::process::Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(scratch.join("one")).status();
        let is_mounted = mount.is_ok_and(|status| status.success());
        sweep(&scratch).unwrap();
        if is_mounted {
            assert_eq!(files::entries(&scratch).unwrap(), [scratch.join("one")]);
            assert!(std::process::Command::new("umount").arg(scratch.join("one")).status().unwrap().success());
            sweep(&scratch).unwrap();
        }
        assert!(files::entries(&scratch).unwrap().is_empty());
    }
}
