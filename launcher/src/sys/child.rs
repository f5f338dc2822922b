//! Between fork and exec of a child process.
#![expect(
    unsafe_code,
    reason = "only a hook between fork and exec can set the death signal and let descriptors through"
)]

use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SigSet, Signal};

/// Makes the child die with the thread that forks it, gain no privileges, open only what a Landlock ruleset lets it, and
/// inherit exactly `inherited` and its standard streams. The caller keeps these descriptors open until the child has
/// executed.
pub(crate) fn prepare(command: &mut Command, inherited: Vec<i32>, ruleset: Option<OwnedFd>) {
    let parent = nix::unistd::getpid();
    let hook = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // A parent that died before the line above sends no signal any more.
        if nix::unistd::getppid() != parent {
            return Err(nix::errno::Errno::ESRCH.into());
        }
        nix::sys::prctl::set_no_new_privs()?;
        SigSet::empty().thread_set_mask()?;
        // Descriptors that this process inherited by accident are not for the child.
        // SAFETY: close_range with this flag closes nothing and takes no pointer; it marks descriptors to be closed by exec.
        let marked = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        // Without it the child would have every descriptor of ours.
        Errno::result(marked)?;
        for number in &inherited {
            // SAFETY: the caller keeps the owners of these numbers until the child has executed, and a fork has its parent's
            // descriptors: they are open here.
            let descriptor = unsafe { BorrowedFd::borrow_raw(*number) };
            fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        if let Some(ruleset) = &ruleset {
            // SAFETY: landlock_restrict_self takes two integers; the ruleset is open as long as this closure.
            Errno::result(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })?;
        }
        Ok(())
    };
    // SAFETY: `pre_exec` demands async-signal-safe code: the hook makes only system calls (prctl, getppid,
    // rt_sigprocmask, close_range, fcntl, landlock_restrict_self) on values made before the fork, and allocates nothing (errors are plain numbers).
    unsafe { command.pre_exec(hook) };
}
