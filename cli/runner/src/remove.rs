//! Removes folders that a less privileged process has filled: of any depth, and without following a link.
//!
//! The standard library keeps a descriptor open for each level, so that a folder a few thousand levels deep cannot be removed.
//! Here what lies deeper than one level is moved up before it is removed: two descriptors and one step per folder are enough.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Removes what is at a path; a folder with all in it. What is absent is removed already.
///
/// # Errors
/// When the system refuses, or others keep filling the folder.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let top = match openat(AT_FDCWD, path, folder_flags(), Mode::empty()) {
        Ok(top) => File::from(top),
        Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::ENOTDIR | Errno::ELOOP) => return Ok(unlinkat(AT_FDCWD, path, UnlinkatFlags::NoRemoveDir)?),
        Err(errno) => return Err(errno.into()),
    };
    let mut moved = 0;
    loop {
        let names = names(&top)?;
        if names.is_empty() {
            break;
        }
        for name in names {
            if !is_removed(&top, &name)? {
                lift(&top, &name, &mut moved)?;
            }
        }
    }
    match unlinkat(AT_FDCWD, path, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Empties a folder of `top` into `top`, then removes it.
fn lift(top: &File, name: &OsStr, moved: &mut u64) -> io::Result<()> {
    let folder = match openat(top, name, folder_flags(), Mode::empty()) {
        Ok(folder) => File::from(folder),
        Err(Errno::ENOENT) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    for inner in names(&folder)? {
        while !is_removed(&folder, &inner)? {
            *moved += 1;
            match renameat(&folder, inner.as_os_str(), top, format!(".removed-{moved}").as_str()) {
                Ok(()) | Err(Errno::ENOENT) => break,
                // The name is taken: the next one may not be.
                Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    // What was put there since is found by the next round.
    is_removed(top, name).map(drop)
}

/// Removes a file or an empty folder; `false` for a folder that is not empty.
fn is_removed(folder: &File, name: &OsStr) -> io::Result<bool> {
    let removed = match unlinkat(folder, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::EISDIR) => unlinkat(folder, name, UnlinkatFlags::RemoveDir),
        removed => removed,
    };
    match removed {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn names(folder: &File) -> io::Result<Vec<OsString>> {
    // By its descriptor, whatever is at its path by now.
    let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect()
}

fn folder_flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    // spec: DISK-6
    #[test]
    fn a_folder_forty_thousand_levels_deep_is_removed() {
        // In memory where that is possible: a disk takes a minute for so many folders.
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let top = root.path().join("deep");
        fs::create_dir(&top).unwrap();
        let mut at = File::open(&top).unwrap();
        for _ in 0..40_000 {
            nix::sys::stat::mkdirat(&at, "d", Mode::S_IRWXU).unwrap();
            at = openat(&at, "d", folder_flags(), Mode::empty()).map(File::from).unwrap();
        }
        drop(at);
        remove_tree(&top).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    // spec: DISK-6
    #[test]
    fn links_are_removed_and_what_they_lead_to_stays() {
        let root = tempfile::tempdir().unwrap();
        let (kept, top) = (root.path().join("kept"), root.path().join("top"));
        fs::create_dir_all(kept.join("inner")).unwrap();
        fs::create_dir_all(top.join("a/b/c")).unwrap();
        fs::write(top.join(".removed-1"), "in the way").unwrap();
        symlink(&kept, top.join("a/b/link")).unwrap();
        remove_tree(&top).unwrap();
        assert!(!top.exists() && kept.join("inner").exists());
        symlink(&kept, &top).unwrap();
        remove_tree(&top).unwrap();
        assert!(fs::symlink_metadata(&top).is_err() && kept.join("inner").exists());
        remove_tree(&top).unwrap();
    }
}
