//! `tapvisor supervise`: the process behind a VM, started by `run`, `start` and `restart` alone.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use super::arguments::Supervise;
use super::failure::{Exit, Failure};
use super::names;
use crate::runner::chain;
use crate::runner::files;
use crate::runner::layout::Layout;
use crate::runner::network::PodNetwork;
use crate::runner::protocol::Report;
use crate::runner::reap::reap_one;
use crate::runner::store::{Store, VmLock};
use crate::runner::supervisor::{Parts, RealPod, Supervisor};
use crate::sys::descriptors::Inherited;

/// Supervises until the VM has ended; what it has to say goes to its log and to its starter.
pub(crate) fn supervise(arguments: &Supervise) -> ExitCode {
    super::log_to_stderr("info");
    let mut inherited = Inherited::default();
    let lock = inherited.take("--lock-fd", arguments.lock_fd);
    let starter = inherited.take("--starter-fd", arguments.starter_fd);
    let (lock, starter) = match lock.and_then(|lock| Ok((lock, UnixStream::from(starter?)))) {
        Ok(both) => both,
        Err(error) => return Failure::new(Exit::Usage, error.to_string()).report(),
    };
    match start(arguments, lock, &starter) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            take_back(&arguments.name);
            tell(&starter, &failure);
            failure.report()
        }
    }
}

fn start(arguments: &Supervise, lock: OwnedFd, starter: &UnixStream) -> Result<u8, Failure> {
    let key = names::vm(&arguments.name)?;
    let lock = VmLock::inherited(plugins_inherit(lock)?);
    let store = Store::new(Layout::default());
    let machine = files::read_json(&store.layout().vm(&key).machine())?;
    let container_id = store.status(&key)?.container_id;
    let network = PodNetwork::of(store.layout(), &key, container_id, store.attachments(&key)?);
    let pod = RealPod::new(store.clone(), network, Some(machine));
    let spread = f32::from(random_byte()?) / f32::from(u8::MAX);
    let supervisor = Supervisor::new(Parts { store, key, lock, pod, clock: unix_seconds, spread })?;
    // One thread decides and starts the launcher: the kernel ends a launcher with the *thread* that started it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(supervisor.run(Some(starter.try_clone()?)))?;
    Ok(code)
}

/// The lock stays open in plugins: it is free only when the last of them has ended, so that nobody calls DEL while an
/// ADD still runs whose caller was killed. The launcher is given its descriptors one by one and does not get it.
fn plugins_inherit(lock: OwnedFd) -> Result<File, Failure> {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    fcntl(&lock, FcntlArg::F_SETFD(FdFlag::empty())).map_err(io::Error::from)?;
    Ok(File::from(lock))
}

/// What was prepared for a supervisor that could not begin is not left to the next command.
fn take_back(name: &str) {
    let Ok(key) = names::vm(name) else { return };
    if let Some(left) = reap_one(&Store::new(Layout::default()), &key).and_then(|vm| vm.left) {
        tracing::warn!(left, "the next command tries again");
    }
}

/// A failure before there was a supervisor to tell it.
fn tell(mut starter: &UnixStream, failure: &Failure) {
    use std::io::Write as _;
    let report = Report::Failed { exit_code: failure.code, message: failure.messages.join("; ") };
    let mut line = serde_json::to_vec(&report).unwrap_or_default();
    line.push(b'\n');
    if let Err(error) = starter.write_all(&line) {
        tracing::warn!("nobody hears why: {}", chain(&error));
    }
}

fn random_byte() -> io::Result<u8> {
    use std::io::Read as _;
    let mut byte = [0];
    File::open("/dev/urandom")?.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// The edge of the program: the only clock the runner has.
pub(crate) fn unix_seconds() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the edge of the program; everything below is given the time")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or(0)
}
