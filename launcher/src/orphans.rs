//! Children of this process: those it waits for itself, and those that others left behind.
//!
//! In a PID namespace of its own the launcher is the first process: whatever an engine starts and leaves becomes its child,
//! and stays a zombie until the launcher waits for it.

use std::io;
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

/// Children that their starter waits for.
static WAITED_FOR: Mutex<Vec<u32>> = Mutex::new(Vec::new());

fn waited_for() -> MutexGuard<'static, Vec<u32>> {
    WAITED_FOR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a child that the caller waits for, and says so with [`forget`].
///
/// # Errors
/// The system's.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    // Held until the child is listed: one that ends at once is not taken for an orphan.
    let mut waited_for = waited_for();
    let child = command.spawn()?;
    waited_for.push(child.id());
    Ok(child)
}

/// A child was waited for.
pub(crate) fn forget(child: u32) {
    waited_for().retain(|known| *known != child);
}

/// Waits for all others that have ended.
pub(crate) fn reap() {
    let waited_for = waited_for();
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) = waitid(Id::All, look) {
        // Its starter is about to, and its end is the end of this process: those behind it go with it.
        if waited_for.contains(&pid.as_raw().cast_unsigned()) || !is_reaped(pid) {
            return;
        }
    }
}

fn is_reaped(pid: Pid) -> bool {
    waitpid(pid, Some(WaitPidFlag::WNOHANG)).is_ok()
}
