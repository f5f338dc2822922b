//! Unix sockets at paths of any length: a socket's address holds 107 bytes, the path of a VM's folder may be longer.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::libc;

/// What `sun_path` holds beside its closing zero (unix(7)).
const MOST_BYTES: usize = 107;

/// A path to a socket that fits into an address, for as long as this lives.
#[derive(Debug)]
pub struct Address<'a> {
    path: Cow<'a, Path>,
    /// The folder that a short path goes through.
    _folder: Option<File>,
}

impl<'a> Address<'a> {
    /// The address of the socket at `path`: that itself, or by way of its folder, which is opened.
    ///
    /// # Errors
    /// When a folder is not there or may not be searched.
    pub fn of(path: &'a Path) -> io::Result<Self> {
        if path.as_os_str().len() <= MOST_BYTES {
            return Ok(Self { path: path.into(), _folder: None });
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        let folder = File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(folder)?;
        let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        Ok(Self { path: path.into(), _folder: Some(folder) })
    }

    /// The path that fits.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Listens at `path`; a socket that an earlier process left there is replaced.
///
/// # Errors
/// The system's.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(Address::of(path)?.path())
}

/// Connects to who listens at `path`.
///
/// # Errors
/// The system's; `NotFound` and `ConnectionRefused` when nobody listens.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(Address::of(path)?.path())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn a_path_that_no_address_holds_is_listened_and_connected_to() {
        let root = tempfile::tempdir().unwrap();
        for length in [1, 100, 250] {
            let folder = root.path().join("x".repeat(length));
            fs::create_dir(&folder).unwrap();
            let path = folder.join("console.sock");
            assert!(connect(&path).is_err());
            for _ in 0..2 {
                let listener = listen(&path).unwrap();
                connect(&path).unwrap().write_all(b"here").unwrap();
                let mut heard = String::new();
                listener.accept().unwrap().0.read_to_string(&mut heard).unwrap();
                assert_eq!(heard, "here");
            }
        }
        assert!(listen(&root.path().join("y".repeat(120)).join("console.sock")).is_err());
    }
}
