//! Opens what a launcher left in its pod's emptyDir, without following anything that it could have put there.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use node_protocol::{PodUid, names};
use protocol::outcome::{OUTCOME_FILE, Outcome};

/// The longest outcome that is read.
const MAX_OUTCOME_BYTES: u64 = 64 << 10;

/// The pods that have a folder with the launchers' volume.
///
/// # Errors
/// The system's.
pub(super) fn pods(folder: &Path) -> io::Result<Vec<PodUid>> {
    let mut pods = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let Ok(uid) = entry?.file_name().to_string_lossy().parse::<PodUid>() else { continue };
        if has_launcher(folder, &uid) {
            pods.push(uid);
        }
    }
    Ok(pods)
}

/// Whether the pod has the volume, and in it a socket or an outcome, or whatever is at their places.
fn has_launcher(folder: &Path, pod: &PodUid) -> bool {
    let volume = volume(pod);
    let Ok(volume) = open(folder, &volume, OFlag::O_PATH | OFlag::O_DIRECTORY) else { return false };
    let at = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
    [names::CONTROL_SOCKET, OUTCOME_FILE].iter().any(|name| nix::sys::stat::fstatat(&volume, *name, at).is_ok())
}

/// kubelet's path of the launchers' volume below its folder of pods.
fn volume(pod: &PodUid) -> PathBuf {
    Path::new(pod.as_str()).join("volumes/kubernetes.io~empty-dir").join(names::RUN_VOLUME)
}

/// A socket in the pod's volume, opened as a place in the file system.
#[derive(Debug)]
pub(super) struct Socket(File);

impl Socket {
    /// Opens the one of this name.
    ///
    /// # Errors
    /// When nothing is there, or something else than a socket; a link is `ELOOP`.
    pub(super) fn open(folder: &Path, pod: &PodUid, name: &str) -> io::Result<Self> {
        let file = open(folder, &volume(pod).join(name), OFlag::O_PATH)?;
        if !file.metadata()?.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no socket"));
        }
        Ok(Self(file))
    }

    /// An address that leads to this very socket.
    pub(super) fn address(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

/// How the launcher ended, if it has and says so in its folder.
pub(super) fn outcome(folder: &Path, pod: &PodUid) -> io::Result<Option<Outcome>> {
    // A pipe would hold up who opens it.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
    let file = match open(folder, &volume(pod).join(OUTCOME_FILE), flags) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut text = Vec::new();
    file.take(MAX_OUTCOME_BYTES).read_to_end(&mut text)?;
    Ok(Some(serde_json::from_slice(&text)?))
}

/// Opens `path` below `folder`; no component may be a link or lead out.
fn open(folder: &Path, path: &Path, flags: OFlag) -> io::Result<File> {
    let folder = File::open(folder)?;
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
    Ok(openat2(&folder, path, how)?.into())
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    pub(in super::super) const POD: &str = "5d1f1c2e-1e0b-4b7c-9d1a-0c5b6a7d8e9f";
    const OTHER: &str = "00000000-1e0b-4b7c-9d1a-0c5b6a7d8e9f";

    /// kubelet's folder with the volume of a pod.
    pub(in super::super) fn kubelet() -> (tempfile::TempDir, PodUid, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let pod: PodUid = POD.parse().unwrap();
        let volume = folder.path().join(volume(&pod));
        fs::create_dir_all(&volume).unwrap();
        (folder, pod, volume)
    }

    #[test]
    fn pods_are_found_by_the_socket_in_their_own_volume() {
        let (folder, pod, volume) = kubelet();
        fs::create_dir_all(folder.path().join(OTHER).join("volumes")).unwrap();
        fs::create_dir_all(folder.path().join("not-a-pod")).unwrap();
        assert_eq!(pods(folder.path()).unwrap(), []);
        let _listener = UnixListener::bind(volume.join("control.sock")).unwrap();
        assert_eq!(pods(folder.path()).unwrap(), std::slice::from_ref(&pod));
        let socket = Socket::open(folder.path(), &pod, "control.sock").unwrap();
        assert!(std::os::unix::net::UnixStream::connect(socket.address()).is_ok());
    }

    // spec: NODE-6
    #[test]
    fn no_link_is_followed_wherever_a_launcher_puts_it() {
        let (folder, pod, volume) = kubelet();
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let _listener = UnixListener::bind(outside.join("control.sock")).unwrap();
        fs::write(outside.join("outcome.json"), r#"{"outcome":"killed","reason":""}"#).unwrap();
        for target in
            [outside.join("control.sock"), "../../../../outside/control.sock".into(), "/proc/self/fd/0".into()]
        {
            symlink(&target, volume.join("control.sock")).unwrap();
            let refused = Socket::open(folder.path(), &pod, "control.sock").unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(nix::libc::ELOOP), "{target:?}");
            assert_eq!(
                pods(folder.path()).unwrap(),
                std::slice::from_ref(&pod),
                "the link is reported, not overlooked"
            );
            fs::remove_file(volume.join("control.sock")).unwrap();
        }
        symlink(outside.join("outcome.json"), volume.join("outcome.json")).unwrap();
        assert_eq!(outcome(folder.path(), &pod).unwrap_err().raw_os_error(), Some(nix::libc::ELOOP));
        // The whole volume as a link.
        fs::remove_file(volume.join("outcome.json")).unwrap();
        fs::remove_dir(&volume).unwrap();
        symlink(&outside, &volume).unwrap();
        assert!(Socket::open(folder.path(), &pod, "control.sock").is_err());
        assert_eq!(pods(folder.path()).unwrap(), []);
    }

    // spec: NODE-6
    #[test]
    fn only_a_socket_is_connected_to_and_no_pipe_delays_the_agent() {
        let (folder, pod, volume) = kubelet();
        fs::write(volume.join("control.sock"), "").unwrap();
        assert!(Socket::open(folder.path(), &pod, "control.sock").unwrap_err().to_string().contains("no socket"));
        assert_eq!(outcome(folder.path(), &pod).unwrap(), None);
        nix::unistd::mkfifo(&volume.join("outcome.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(outcome(folder.path(), &pod).unwrap_err().to_string().contains("no regular file"));
        fs::remove_file(volume.join("outcome.json")).unwrap();
        Outcome::failed("no disk".to_owned()).write(&volume).unwrap();
        assert_eq!(outcome(folder.path(), &pod).unwrap(), Some(Outcome::failed("no disk".to_owned())));
    }
}
