//! `tapvisor supervise`, below its command line: the process behind a VM, started by `run`, `start` and `restart` alone.

use std::fs::File;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use protocol::descriptors::{DescriptorError, Inherited};
use protocol::launch_file::{LaunchFile, LaunchFileError};
use terms::ObjectKey;

use super::chain;
use super::clock::unix_seconds;
use super::files::{self, FileError};
use super::launcher::{LauncherFile, launcher_path};
use super::layout::Layout;
use super::network::PodNetwork;
use super::protocol::Report;
use super::reap::reap_one;
use super::record::Status;
use super::store::{Store, StoreError, VmLock};
use super::supervisor::{Parts, RealPod, Supervisor};
use super::supervisor_log::SupervisorLog;

/// Why there is no supervisor.
#[derive(Debug, thiserror::Error)]
enum SuperviseError {
    #[error(transparent)]
    Descriptor(#[from] DescriptorError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path:?}")]
    Machine {
        path: PathBuf,
        #[source]
        source: LaunchFileError,
    },
    #[error("cannot open {path:?}, the program of VM processes")]
    Launcher {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot start to supervise")]
    System(#[from] io::Error),
}

impl SuperviseError {
    /// 2 the command line is wrong, 4 there is no such VM, 6 the host lacks something, 1 otherwise.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Descriptor(_) => 2,
            Self::Store(StoreError::NotFound(_)) => 4,
            Self::Launcher { .. } => 6,
            _ => 1,
        }
    }
}

/// Supervises a VM until it has ended; reports go to its log and to its starter.
///
/// `log` takes the launcher's output; `lock_fd` is the VM's lock, `starter_fd` the socket to its starter; both are inherited.
#[must_use]
pub fn supervise(key: &ObjectKey, log: Option<SupervisorLog>, lock_fd: RawFd, starter_fd: RawFd) -> ExitCode {
    let mut inherited = Inherited::default();
    let lock = inherited.take("--lock-fd", lock_fd);
    let starter = inherited.take("--starter-fd", starter_fd);
    let (lock, starter) = match lock.and_then(|lock| Ok((lock, UnixStream::from(starter?)))) {
        Ok(both) => both,
        Err(error) => return report(&error.into()),
    };
    // The runtime has one thread, so this covers its tasks; work in other threads enters the span itself.
    let span = tracing::info_span!("vm", name = %key);
    let _vm = span.enter();
    match start(key, lock, &starter, log) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            clean_up(key);
            tell(&starter, &error);
            report(&error)
        }
    }
}

fn report(error: &SuperviseError) -> ExitCode {
    tracing::error!(error = %chain(error), "the supervisor cannot start");
    ExitCode::from(error.exit_code())
}

fn start(
    key: &ObjectKey,
    lock: OwnedFd,
    starter: &UnixStream,
    log: Option<SupervisorLog>,
) -> Result<u8, SuperviseError> {
    let key = key.clone();
    let lock = VmLock::inherited(key.clone(), plugins_inherit(lock)?);
    let launcher = LauncherFile::next_to_this_program()
        .map_err(|source| SuperviseError::Launcher { path: launcher_path(), source })?;
    let store = Store::new(Layout::default());
    let path = store.layout().vm(&key).machine();
    let machine = LaunchFile::parse(&files::read(&path)?);
    let machine = machine.map_err(|source| SuperviseError::Machine { path, source })?;
    let Status { container_id, owner, .. } = store.status(&key)?;
    let network = PodNetwork::of(store.layout(), &key, container_id, store.attachments(&key)?);
    let pod = RealPod::new(store.clone(), network, owner, Some((machine, launcher)));
    let pod = match log {
        Some(log) => pod.with_log(log),
        None => pod,
    };
    let spread = f32::from(random_byte()?) / f32::from(u8::MAX);
    let supervisor = Supervisor::new(Parts { store, key, lock, pod, clock: unix_seconds, spread })?;
    // One thread decides and starts the launcher: the kernel ends a launcher with the *thread* that started it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(supervisor.run(Some(starter.try_clone()?)))?;
    Ok(code)
}

/// The lock stays open in plugins: it is free only when the last of them has ended, so that no process calls DEL while an
/// ADD still runs whose caller was killed. The launcher inherits listed descriptors alone and does not get it.
fn plugins_inherit(lock: OwnedFd) -> io::Result<File> {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    fcntl(&lock, FcntlArg::F_SETFD(FdFlag::empty())).map_err(io::Error::from)?;
    Ok(File::from(lock))
}

/// What was prepared for a supervisor that could not begin is not left to the next command.
fn clean_up(key: &ObjectKey) {
    if let Some(left) = reap_one(&Store::new(Layout::default()), key).and_then(|vm| vm.left) {
        tracing::warn!(left, "the next command tries again");
    }
}

/// A failure before there was a supervisor to tell it.
fn tell(mut starter: &UnixStream, error: &SuperviseError) {
    use std::io::Write as _;
    let report = Report::Failed { exit_code: error.exit_code(), message: chain(error) };
    let mut line = serde_json::to_vec(&report).unwrap_or_default();
    line.push(b'\n');
    if let Err(error) = starter.write_all(&line) {
        tracing::warn!(error = %chain(&error), "the starter cannot be told why the VM failed");
    }
}

fn random_byte() -> io::Result<u8> {
    use std::io::Read as _;
    let mut byte = [0];
    File::open("/dev/urandom")?.read_exact(&mut byte)?;
    Ok(byte[0])
}
