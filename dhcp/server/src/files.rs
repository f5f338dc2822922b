//! The folder of files that are served: nothing outside of it can be opened, by whatever name or link.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

/// A folder of files.
#[derive(Debug)]
pub(crate) struct Root {
    folder: OwnedFd,
}

/// A file to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    pub(crate) file: Arc<File>,
    pub(crate) size: u64,
}

/// Why a file is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("no such file")]
    Missing,
    #[error("leads out of the folder that is served")]
    Outside,
    #[error("is no regular file")]
    NotRegular,
    #[error("the server may not read it")]
    Unreadable,
    #[error("cannot be opened: {0}")]
    Other(nix::Error),
}

impl Root {
    /// # Errors
    /// When there is no such folder, or it may not be entered.
    pub(crate) fn open(path: &Path) -> Result<Self, (PathBuf, nix::Error)> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = open(path, flags, Mode::empty()).map_err(|errno| (path.to_owned(), errno))?;
        Ok(Self { folder })
    }

    /// Opens a file by its name below the folder; a slash at the beginning is the folder itself. Symbolic links are followed as
    /// far as they stay below the folder.
    pub(crate) fn file(&self, name: &str) -> Result<Served, Denied> {
        let name = name.trim_start_matches('/');
        // Not blocking: a pipe would wait for its writer.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let beneath = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let opened = openat2(&self.folder, name, OpenHow::new().flags(flags).resolve(beneath));
        let file = File::from(opened.map_err(|errno| match errno {
            nix::Error::ENOENT | nix::Error::ENOTDIR | nix::Error::ENAMETOOLONG | nix::Error::EINVAL => Denied::Missing,
            nix::Error::EXDEV | nix::Error::ELOOP => Denied::Outside,
            nix::Error::EACCES | nix::Error::EPERM => Denied::Unreadable,
            nix::Error::ENXIO => Denied::NotRegular,
            errno => Denied::Other(errno),
        })?);
        let facts = file.metadata().map_err(|_| Denied::Unreadable)?;
        if !facts.is_file() {
            return Err(Denied::NotRegular);
        }
        Ok(Served { file: Arc::new(file), size: facts.len() })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    use super::*;

    // spec: BOOT-7
    #[test]
    fn no_name_and_no_link_leads_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let (root, secret) = (folder.path().join("root"), folder.path().join("secret"));
        std::fs::create_dir_all(root.join("pxelinux.cfg")).unwrap();
        std::fs::write(&secret, "secret").unwrap();
        std::fs::write(root.join("pxelinux.cfg/default"), "menu").unwrap();
        symlink("../secret", root.join("up")).unwrap();
        symlink(&secret, root.join("absolute")).unwrap();
        symlink("..", root.join("folder-up")).unwrap();
        symlink("pxelinux.cfg/default", root.join("inside")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        nix::unistd::mkfifo(&root.join("pipe"), Mode::S_IRWXU).unwrap();
        let served = Root::open(&root).unwrap();
        for name in ["pxelinux.cfg/default", "/pxelinux.cfg/default", "//pxelinux.cfg/../inside", "inside"] {
            let mut text = String::new();
            let found = served.file(name).unwrap();
            let _ = (&*found.file).read_to_string(&mut text).unwrap();
            assert_eq!((text.as_str(), found.size), ("menu", 4), "{name}");
        }
        let secret = secret.display().to_string();
        for name in
            ["../secret", "/../secret", "pxelinux.cfg/../../secret", "up", "absolute", "folder-up/secret", "loop"]
        {
            assert_eq!(served.file(name).unwrap_err(), Denied::Outside, "{name}");
        }
        for name in [secret.as_str(), "none", "inside/none", "", "/", "a\0b"] {
            let denied = served.file(name).unwrap_err();
            assert!(matches!(denied, Denied::Missing | Denied::NotRegular), "{name:?}: {denied:?}");
        }
        assert_eq!(served.file("pipe").unwrap_err(), Denied::NotRegular);
        assert_eq!(served.file("pxelinux.cfg").unwrap_err(), Denied::NotRegular);
    }
}
