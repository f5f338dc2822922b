//! Unix sockets at paths of any length: a socket's address holds 107 bytes, the path of a VM's folder may be longer.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::stat::Mode;

/// The socket of the serial console in a launcher's folder: a new reader is shown the last screenfuls first.
pub const CONSOLE_SOCKET: &str = "console.sock";

/// The socket of the serial console that shows only what the guest writes after the connection.
pub const LIVE_CONSOLE_SOCKET: &str = "console-live.sock";

/// The socket of the guest's screen, for clients of VNC (RFC 6143) without authentication. Machines with graphics have it.
pub const VNC_SOCKET: &str = "vnc.sock";

/// Bytes that `sun_path` holds without its closing zero (unix(7)).
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

    /// A path to the socket that fits into `sun_path`; valid while this address lives.
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

/// A socket to connect to, opened without following a link, and the user who may answer there: the owner of its folder, for
/// only that user and root can have put it there.
#[derive(Debug)]
pub struct Target {
    socket: File,
    owner: u32,
}

impl Target {
    /// Looks at the socket at `path`.
    ///
    /// # Errors
    /// When nothing is there, or a link or something else than a socket.
    pub fn of(path: &Path) -> io::Result<Self> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let folder = nix::fcntl::open(folder, flags | OFlag::O_DIRECTORY, Mode::empty())?;
        let socket = File::from(nix::fcntl::openat(&folder, name, flags, Mode::empty())?);
        if !socket.metadata()?.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no socket"));
        }
        Ok(Self { socket, owner: File::from(folder).metadata()?.uid() })
    }

    /// An address that leads to this very socket.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.socket.as_raw_fd()))
    }

    /// Refuses a peer that is another user.
    ///
    /// # Errors
    /// When it is.
    pub fn expect_owner(&self, uid: u32) -> io::Result<()> {
        if uid == self.owner {
            return Ok(());
        }
        let text = format!("uid {uid} answers, expected uid {}", self.owner);
        Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
    }
}

/// Connects to the process that listens at `path`, if that is the owner of the folder.
///
/// # Errors
/// The system's; `NotFound` and `ConnectionRefused` when no process listens, `PermissionDenied` when another user does.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let target = Target::of(path)?;
    let stream = UnixStream::connect(target.path())?;
    target.expect_owner(peer(&stream)?)?;
    Ok(stream)
}

/// Connects to the process that listens at `path`, if that runs as this process' user or is the owner of the folder: for a
/// folder that is neither's, as a pod's emptyDir.
///
/// # Errors
/// As [`connect`].
pub fn connect_to_peer(path: &Path) -> io::Result<UnixStream> {
    let target = Target::of(path)?;
    let stream = UnixStream::connect(target.path())?;
    let user = peer(&stream)?;
    if user != nix::unistd::geteuid().as_raw() {
        target.expect_owner(user)?;
    }
    Ok(stream)
}

/// Whether the other side is root or the user of this process: others have no business here.
#[must_use]
pub fn is_admitted(stream: &UnixStream) -> bool {
    peer(stream).is_ok_and(|uid| uid == 0 || uid == nix::unistd::geteuid().as_raw())
}

/// The user on the other side, as it was when it connected or began to listen.
fn peer(stream: &UnixStream) -> io::Result<u32> {
    Ok(nix::sys::socket::getsockopt(stream, nix::sys::socket::sockopt::PeerCredentials)?.uid())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    // spec: CLI-17
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

    // spec: DISK-4
    #[test]
    fn a_link_in_the_place_of_a_socket_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let (real, link) = (root.path().join("real.sock"), root.path().join("control.sock"));
        let _listener = listen(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(connect(&real).is_ok());
        assert!(connect(&link).is_err());
        fs::remove_file(&link).unwrap();
        fs::write(&link, "").unwrap();
        assert!(connect(&link).unwrap_err().to_string().contains("no socket"));
    }

    // spec: DISK-4
    #[test]
    fn another_user_neither_answers_nor_asks() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("control.sock");
        let listener = listen(&path).unwrap();
        assert!(is_admitted(&connect(&path).unwrap()) && is_admitted(&listener.accept().unwrap().0));
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        // The folder belongs to a launcher, but another user serves its socket.
        std::os::unix::fs::chown(root.path(), Some(107), Some(107)).unwrap();
        let error = connect(&path).unwrap_err().to_string();
        assert_eq!(error, "uid 0 answers, expected uid 107");
        // Root itself serves it: the same user as this process.
        assert!(connect_to_peer(&path).is_ok());
    }
}
