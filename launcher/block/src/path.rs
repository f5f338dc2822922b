//! Opens what a user names on the host, without following what a less privileged user could put in its place.
//!
//! *Guarantees.* Every component is opened by itself. A symbolic link is followed only if it and the folder it is in belong to
//! root, or to the user of this process, and no other may write to that folder. What lies in Tapvisor's own folders is refused
//! by whatever path. Nothing is opened for reading or writing before it is known to be a regular file or a block device, and
//! what was looked at is what is opened.
//! `openat2` with RESOLVE_NO_SYMLINKS refuses `/dev/disk/by-id` and `/var/run` as well, and the crate `pathrs` follows links
//! inside a root whatever user owns them; hence this walk.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;

/// As Linux has it: MAXSYMLINKS of `linux/namei.h`.
const MAX_LINKS: usize = 40;

/// Why a path is not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// A link that others than root could have made.
    #[error(
        "goes through the link {link:?}, which is followed only if it and its folder are root's and no other user may write there"
    )]
    Link {
        /// The link that is not followed, or that is one too many.
        link: PathBuf,
    },
    /// One of Tapvisor's own files.
    #[error("lies in {folder:?}, where Tapvisor keeps its own files")]
    Own {
        /// The folder that the path leads into.
        folder: PathBuf,
    },
    /// A folder, a socket, a pipe.
    #[error("is neither a regular file nor a block device")]
    NotADisk,
    /// The file system refused to open or read it.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl From<Errno> for PathError {
    fn from(errno: Errno) -> Self {
        Self::System(errno.into())
    }
}

/// Where a path leads to.
#[derive(Debug)]
struct Walked {
    /// The folder that holds the last component.
    folder: File,
    name: OsString,
    /// What is there, not opened for anything.
    there: Option<File>,
}

/// Opens a disk's file or block device, for writing too if asked. A block device that is written to is this process' alone as
/// long as the descriptor or a copy of it is open.
///
/// # Errors
/// Why it is not opened; [`io::ErrorKind::ResourceBusy`] where another process has the block device for itself, or it is mounted.
pub fn open(path: &Path, writable: bool, own: &[&Path]) -> Result<File, PathError> {
    let there = walk(path, own)?.there.ok_or(Errno::ENOENT)?;
    let kind = there.metadata()?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(PathError::NotADisk);
    }
    // By the descriptor: the very file that was looked at.
    let again = PathBuf::from(format!("/proc/self/fd/{}", there.as_raw_fd()));
    let mut flags = OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    // Each pod has a device node of its own, so locks of files do not meet; the kernel knows one device (open(2), O_EXCL).
    flags.set(OFlag::O_EXCL, writable && kind.is_block_device());
    Ok(OpenOptions::new().read(true).write(writable).custom_flags(flags.bits()).open(again)?)
}

/// What is at a path, without opening it; `None` when nothing is.
///
/// # Errors
/// Why it may not be looked at.
pub fn examine(path: &Path, own: &[&Path]) -> Result<Option<Metadata>, PathError> {
    match walk(path, own) {
        Ok(walked) => Ok(walked.there.map(|there| there.metadata()).transpose()?),
        Err(PathError::System(error)) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a file that is not there yet, readable and writable by its owner alone, with the folders above it. Returns the file
/// and how many folders were made.
///
/// # Errors
/// Why it cannot be made; folders that were made are removed again.
pub fn create(path: &Path, own: &[&Path]) -> Result<(File, usize), PathError> {
    let mut made = 0;
    let created = create_below(path, own, &mut made);
    if created.is_err() {
        remove_folders(path, made, own);
    }
    created.map(|file| (file, made))
}

fn create_below(path: &Path, own: &[&Path], made: &mut usize) -> Result<File, PathError> {
    let folders: Vec<_> = path.ancestors().skip(1).collect();
    for folder in folders.into_iter().rev().filter(|folder| folder.file_name().is_some()) {
        let walked = walk(folder, own)?;
        if walked.there.is_none() {
            nix::sys::stat::mkdirat(&walked.folder, walked.name.as_os_str(), Mode::from_bits_truncate(0o755))?;
            *made += 1;
        }
    }
    let walked = walk(path, own)?;
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(&walked.folder, walked.name.as_os_str(), flags, Mode::from_bits_truncate(0o600)).map(File::from)?)
}

/// Removes a file that was made, and as many folders above it as were made with it; those that are not empty stay.
///
/// # Errors
/// When the file cannot be removed.
pub fn remove(path: &Path, folders: usize, own: &[&Path]) -> Result<(), PathError> {
    let walked = walk(path, own)?;
    nix::unistd::unlinkat(&walked.folder, walked.name.as_os_str(), nix::unistd::UnlinkatFlags::NoRemoveDir)?;
    remove_folders(path, folders, own);
    Ok(())
}

fn remove_folders(path: &Path, folders: usize, own: &[&Path]) {
    for folder in path.ancestors().skip(1).take(folders) {
        let removed = walk(folder, own).map(|walked| {
            nix::unistd::unlinkat(&walked.folder, walked.name.as_os_str(), nix::unistd::UnlinkatFlags::RemoveDir)
        });
        if !matches!(removed, Ok(Ok(()))) {
            return;
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn walk(path: &Path, own: &[&Path]) -> Result<Walked, PathError> {
    let own: Vec<_> = own.iter().filter_map(|folder| Some((folder, id(&folder.metadata().ok()?)))).collect();
    let expect_foreign = |found: &Metadata| match own.iter().find(|(_, own)| *own == id(found)) {
        Some((folder, _)) => Err(PathError::Own { folder: folder.to_path_buf() }),
        None => Ok(()),
    };
    let mut folder = File::from(nix::fcntl::open("/", folder_flags(), Mode::empty())?);
    // For messages alone.
    let mut shown = PathBuf::from("/");
    let mut pending = components(path)?;
    let mut links = 0;
    loop {
        let name = pending.pop().ok_or(PathError::NotADisk)?;
        let there = match openat(
            &folder,
            name.as_os_str(),
            OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
            Mode::empty(),
        ) {
            Ok(there) => File::from(there),
            Err(Errno::ENOENT) if pending.is_empty() => return Ok(Walked { folder, name, there: None }),
            Err(errno) => return Err(errno.into()),
        };
        let found = there.metadata()?;
        if found.is_symlink() {
            links += 1;
            let link = shown.join(&name);
            if links > MAX_LINKS || !is_trusted(&found, &folder.metadata()?) {
                return Err(PathError::Link { link });
            }
            let to = PathBuf::from(OsString::from_vec(readlinkat(&there, OsStr::new(""))?.into_vec()));
            if to.is_absolute() {
                folder = File::from(nix::fcntl::open("/", folder_flags(), Mode::empty())?);
                shown = PathBuf::from("/");
            }
            pending.extend(components(&to)?);
            continue;
        }
        if found.is_dir() {
            expect_foreign(&found)?;
        }
        if pending.is_empty() {
            return Ok(Walked { folder, name, there: Some(there) });
        }
        if !found.is_dir() {
            return Err(Errno::ENOTDIR.into());
        }
        shown.push(&name);
        folder = there;
    }
}

fn folder_flags() -> OFlag {
    OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC
}

/// Only root, or the user of this process, can have made the link or can replace it.
fn is_trusted(link: &Metadata, folder: &Metadata) -> bool {
    let is_ours = |found: &Metadata| [0, nix::unistd::geteuid().as_raw()].contains(&found.uid());
    is_ours(link) && is_ours(folder) && folder.mode() & 0o022 == 0
}

/// The components, the first of them last.
fn components(path: &Path) -> Result<Vec<OsString>, PathError> {
    let component = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    Ok(path.components().rev().filter_map(component).collect())
}

fn id(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.path().join("disk.img"), [0; 512]).unwrap();
        folder
    }

    fn refusal(path: &Path) -> String {
        open(path, true, &[]).unwrap_err().to_string()
    }

    // spec: DISK-4
    #[test]
    fn only_links_that_no_other_user_can_have_made_are_followed() {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        symlink("disk.img", at("link")).unwrap();
        open(&at("link"), true, &[]).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o775)).unwrap();
        assert!(refusal(&at("link")).contains("goes through the link"), "{}", refusal(&at("link")));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(refusal(&at("link")).contains("goes through the link"));
        open(&at("disk.img"), true, &[]).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("loop", at("loop")).unwrap();
        assert!(refusal(&at("loop")).contains("goes through the link"));
        if nix::unistd::geteuid().is_root() {
            fs::create_dir(at("theirs")).unwrap();
            symlink("/", at("theirs/root")).unwrap();
            nix::unistd::fchownat(
                nix::fcntl::AT_FDCWD,
                &at("theirs/root"),
                Some(1000.into()),
                None,
                nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
            )
            .unwrap();
            let through = at("theirs/root").join(at("disk.img").strip_prefix("/").unwrap());
            assert!(refusal(&through).contains("theirs/root"), "{}", refusal(&through));
            // The link is root's, and its folder another user's.
            symlink("../disk.img", at("theirs/disk")).unwrap();
            chown(at("theirs"), Some(1000), None).unwrap();
            assert!(refusal(&at("theirs/disk")).contains("theirs/disk"));
        }
    }

    // spec: DISK-4
    #[test]
    fn what_is_tapvisors_own_is_refused_by_any_path() {
        let folder = folder();
        let own = folder.path().join("own");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("disk.img"), [0; 512]).unwrap();
        symlink("own", folder.path().join("link")).unwrap();
        for path in ["own/disk.img", "link/disk.img", "own/../own/disk.img"] {
            let error = open(&folder.path().join(path), true, &[&own]).unwrap_err().to_string();
            assert!(error.contains("where Tapvisor keeps its own files"), "{error}");
        }
        assert!(create(&own.join("new.img"), &[&own]).is_err() && !own.join("new.img").exists());
        open(&folder.path().join("disk.img"), true, &[&own]).unwrap();
    }

    // spec: DISK-4
    #[test]
    fn what_is_no_disk_is_not_opened() {
        let folder = folder();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRUSR).unwrap();
        assert!(matches!(open(&fifo, false, &[]), Err(PathError::NotADisk)));
        assert!(matches!(open(folder.path(), false, &[]), Err(PathError::NotADisk)));
        assert!(matches!(open(Path::new("/dev/null"), false, &[]), Err(PathError::NotADisk)));
        let absent = open(&folder.path().join("absent/disk.img"), false, &[]).unwrap_err();
        assert!(matches!(absent, PathError::System(error) if error.kind() == io::ErrorKind::NotFound));
        assert!(examine(&folder.path().join("absent/disk.img"), &[]).unwrap().is_none());
        assert!(examine(&folder.path().join("disk.img"), &[]).unwrap().is_some());
    }

    #[test]
    fn a_file_is_made_with_its_folders_and_both_are_removed() {
        let folder = folder();
        let path = folder.path().join("a/b/new.img");
        let (file, made) = create(&path, &[]).unwrap();
        assert_eq!((made, file.metadata().unwrap().mode() & 0o777), (2, 0o600));
        assert!(create(&path, &[]).is_err());
        fs::write(folder.path().join("a/other"), "").unwrap();
        remove(&path, made, &[]).unwrap();
        assert!(!folder.path().join("a/b").exists() && folder.path().join("a/other").exists());
        symlink("/nowhere", folder.path().join("link")).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(create(&folder.path().join("link/new.img"), &[]), Err(PathError::Link { .. })));
    }
}
