//! The file system that a VM's launcher writes its logs and sockets to: small, in memory, and the VM's own, so that a
//! launcher that its guest has taken over cannot fill `/run`.
//!
//! It is mounted on the launcher's folder when the VM is attached, and stays until the VM's folder is removed: the console's
//! log can be read as long as the VM is known.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use wiring::Owner;

/// Two console logs of 16 MiB each, the sockets and the outcome.
const MOST_BYTES: u64 = 34 << 20;
/// Files and folders that it may hold (`nr_inodes` of tmpfs).
const MOST_FILES: u32 = 64;

/// Mounts it, unless that was done by an earlier supervisor of the same VM.
///
/// # Errors
/// When the kernel refuses; the folder is then as it was.
pub(crate) fn mount_on(folder: &Path, owner: Owner) -> io::Result<()> {
    if is_mounted(folder)? {
        return Ok(());
    }
    let Owner { uid, gid } = owner;
    let options = format!("size={MOST_BYTES},nr_inodes={MOST_FILES},mode=0700,uid={uid},gid={gid}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(Some("tapvisor"), folder, Some("tmpfs"), flags, Some(options.as_str()))?)
}

/// Takes off whatever is mounted on the folder; nothing, or no folder, is as good.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn unmount(folder: &Path) -> io::Result<()> {
    loop {
        match is_mounted(folder) {
            Ok(true) => umount2(folder, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?,
            Ok(false) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Whether another file system begins at a folder. A link in its place is none.
fn is_mounted(folder: &Path) -> io::Result<bool> {
    let above = folder.parent().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(folder.symlink_metadata()?.dev() != above.symlink_metadata()?.dev())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_mounted_is_unmounted_already() {
        let root = tempfile::tempdir().unwrap();
        assert!(unmount(root.path()).is_ok());
        assert!(unmount(&root.path().join("absent")).is_ok());
    }
}
