//! Network namespaces: opening, making, entering.
//!
//! A thread that entered a namespace never comes back: [`Netns::run`] enters on a thread of its own and lets that end,
//! [`Netns::enter`] is for programs that end there themselves.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use locks::{Lock, LockError, LockKind, Locks, lock_file};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::sys;

/// The namespace that the calling thread is in.
const HERE: &str = "/proc/thread-self/ns/net";

/// Where `ip netns` keeps its namespaces.
const WELL_KNOWN: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// How long to wait for another process that makes the folder of namespaces a mount.
const SHARE_PATIENCE: Duration = Duration::from_secs(10);

/// A network namespace, kept alive by an open descriptor.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
    identity: (u64, u64),
}

/// What went wrong with a network namespace.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum NetnsError {
    /// Nothing is at the path.
    #[error("network namespace {0} does not exist")]
    Absent(PathBuf),
    /// What is at the path is something else.
    #[error("{path} is no network namespace: {found}")]
    Foreign {
        path: PathBuf,
        /// What is there instead.
        found: &'static str,
    },
    /// Something is at the path already.
    #[error("{0} exists already")]
    Exists(PathBuf),
    /// It cannot be locked: another process works on it, or the folder of locks cannot be used.
    #[error("cannot lock network namespace {path}")]
    Locked {
        path: PathBuf,
        /// Which process holds the lock, or what failed.
        #[source]
        source: LockError,
    },
    /// A call failed.
    #[error("cannot {action} network namespace {path}{}", hint(.source))]
    Failed {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The code that ran inside panicked.
    #[error("a panic inside network namespace {path}: {message}")]
    Panicked { path: PathBuf, message: String },
}

fn hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM) => ": CAP_SYS_ADMIN is needed",
        _ => "",
    }
}

impl Netns {
    /// Opens the namespace at a path, such as CNI_NETNS or `/run/netns/<name>`.
    ///
    /// # Errors
    /// When nothing is there, or something that is no network namespace.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, NetnsError> {
        let path = path.as_ref();
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => NetnsError::Absent(path.to_owned()),
            _ => NetnsError::Failed { action: "open", path: path.to_owned(), source },
        };
        // Without O_NONBLOCK, a FIFO at that path would hold us for ever.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
        let foreign = |found| NetnsError::Foreign { path: path.to_owned(), found };
        match sys::namespace_type(file.as_fd()) {
            Ok(libc::CLONE_NEWNET) => {}
            Ok(_) => return Err(foreign("it is a namespace of another type")),
            Err(_) => return Err(foreign("it is an ordinary file or directory, not one mounted from nsfs")),
        }
        let metadata = file.metadata().map_err(failed)?;
        Ok(Self { identity: (metadata.dev(), metadata.ino()), file, path: path.to_owned() })
    }

    /// The namespace that the calling thread is in.
    ///
    /// # Errors
    /// When /proc is not there.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open(HERE)
    }

    /// Makes a namespace that outlives this process, mounted at `path` as `ip netns add` does.
    ///
    /// # Errors
    /// When something is at the path already, or the kernel refuses; then nothing is left behind.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, NetnsError> {
        let path = path.as_ref();
        let failed = |action| move |source: io::Error| NetnsError::Failed { action, path: path.to_owned(), source };
        let parent = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).map_err(failed("make the folder of"))?;
        if WELL_KNOWN.iter().any(|known| parent == Path::new(known)) {
            share(parent).map_err(failed("share the folder of"))?;
        }
        OpenOptions::new().write(true).create_new(true).mode(0o0).open(path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => NetnsError::Exists(path.to_owned()),
            _ => failed("make the mount point of")(source),
        })?;
        let made = on_own_thread(path, || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(Some(HERE), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        });
        let opened = match made {
            Ok(Ok(())) => Self::open(path),
            Ok(Err(errno)) => Err(failed("make")(errno.into())),
            Err(panicked) => Err(panicked),
        };
        if opened.is_err() {
            // The first error is the one to report; what cannot be taken back now was never made.
            let _ = umount2(path, MntFlags::MNT_DETACH);
            let _ = fs::remove_file(path);
        }
        opened
    }

    /// Unmounts and removes the namespace at a path; the kernel frees it once nothing uses it. One that is gone is no error.
    ///
    /// # Errors
    /// When the path holds something else, or the kernel refuses.
    pub fn remove(path: impl AsRef<Path>) -> Result<(), NetnsError> {
        let path = path.as_ref();
        let failed = |source: io::Error| NetnsError::Failed { action: "remove", path: path.to_owned(), source };
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) => {}
            Err(Errno::ENOENT) => return Ok(()),
            // Not a mount: what a creation left that was killed half-way is an empty file.
            Err(Errno::EINVAL) => {
                let metadata = fs::symlink_metadata(path).map_err(failed)?;
                if !metadata.is_file() || metadata.len() != 0 {
                    return Err(NetnsError::Foreign {
                        path: path.to_owned(),
                        found: "it is a file with contents or a folder",
                    });
                }
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }

    /// The same namespace by another descriptor.
    ///
    /// # Errors
    /// When this process has no descriptor left.
    pub fn try_clone(&self) -> Result<Self, NetnsError> {
        let failed = |source| NetnsError::Failed { action: "open", path: self.path.clone(), source };
        Ok(Self { file: self.file.try_clone().map_err(failed)?, path: self.path.clone(), identity: self.identity })
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Locks the namespace for this process, by whatever path it was opened, until the result is dropped or the process ends.
    /// The lock is in a folder of root's: the pod's own processes cannot hold it.
    ///
    /// # Errors
    /// When another process holds the lock for longer than `patience`, or there can be no folder of locks.
    pub fn lock(&self, locks: &Locks, patience: Duration) -> Result<Lock, NetnsError> {
        let failed = |source| NetnsError::Failed { action: "examine", path: self.path.clone(), source };
        let target = self.file.metadata().map_err(failed)?;
        locks.lock(&target, patience).map_err(|source| NetnsError::Locked { path: self.path.clone(), source })
    }

    /// Moves the calling thread into the namespace for the rest of its life: for a process that does one thing and ends.
    /// What it opens of /proc/thread-self and all its sockets are from then on the namespace's.
    ///
    /// # Errors
    /// When the namespace cannot be entered; the thread is then where it was.
    pub fn enter(&self) -> Result<(), NetnsError> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|errno| NetnsError::Failed {
            action: "enter",
            path: self.path.clone(),
            source: errno.into(),
        })
    }

    /// Runs `work` inside the namespace, on a thread that ends with it.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or `work` panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        on_own_thread(&self.path, || setns(&self.file, CloneFlags::CLONE_NEWNET).map(|()| work()))?
            .map_err(|errno| NetnsError::Failed { action: "enter", path: self.path.clone(), source: errno.into() })
    }
}

impl PartialEq for Netns {
    /// Whether both are the same namespace, by whatever path.
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Eq for Netns {}

impl AsFd for Netns {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn on_own_thread<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    let failed = |source| NetnsError::Failed { action: "start a thread for", path: path.to_owned(), source };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work).map_err(failed)?;
        thread.join().map_err(|panic| {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let message = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            NetnsError::Panicked { path: path.to_owned(), message }
        })
    })
}

/// Makes the folder a shared mount of its own, so that namespaces mounted in it appear in every mount namespace.
fn share(folder: &Path) -> io::Result<()> {
    let make_shared = || mount(None::<&str>, folder, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    if make_shared() != Err(Errno::EINVAL) {
        return Ok(make_shared()?);
    }
    // Two creators at once must not both bind the folder onto itself. iproute2 locks the folder for this, which any user can
    // do as well, so that one is waited for and not relied on.
    let file = File::open(folder)?;
    let _lock = Locks::default().lock(&file.metadata()?, SHARE_PATIENCE).map_err(io::Error::other)?;
    let _released_when_closed = lock_file(&file, LockKind::Exclusive, Duration::from_millis(500));
    match make_shared() {
        Err(Errno::EINVAL) => {
            mount(Some(folder), folder, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
            Ok(make_shared()?)
        }
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_namespace_is_itself_by_any_path() {
        let here = Netns::current().unwrap();
        assert_eq!(here, Netns::open("/proc/self/ns/net").unwrap());
    }

    #[test]
    fn what_is_no_network_namespace_is_named() {
        let error = Netns::open("/proc/self/ns/uts").unwrap_err().to_string();
        assert_eq!(error, "/proc/self/ns/uts is no network namespace: it is a namespace of another type");
        let error = Netns::open("/").unwrap_err().to_string();
        assert!(error.starts_with("/ is no network namespace"), "{error}");
        let error = Netns::open("/nowhere/at/all").unwrap_err().to_string();
        assert_eq!(error, "network namespace /nowhere/at/all does not exist");
    }

    #[test]
    fn removing_what_is_gone_is_no_error_and_what_is_foreign_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        Netns::remove(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        // Without CAP_SYS_ADMIN unmounting is refused before the kernel looks; either way the file stays.
        assert!(Netns::remove(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
