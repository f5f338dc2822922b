//! Between fork and exec of a child process.
#![expect(
    unsafe_code,
    reason = "only a hook between fork and exec can set the death signal and let descriptors through"
)]

use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SigSet, Signal};

/// Makes the child die with the thread that forks it, gain no privileges, and inherit exactly `inherited` beside its
/// standard streams. The caller keeps these descriptors open until the child has executed.
pub(crate) fn prepare(command: &mut Command, inherited: Vec<i32>) {
    let parent = nix::unistd::getpid();
    let hook = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // A parent that died before the line above sends no signal any more.
        if nix::unistd::getppid() != parent {
            return Err(nix::errno::Errno::ESRCH.into());
        }
        nix::sys::prctl::set_no_new_privs()?;
        SigSet::empty().thread_set_mask()?;
        // What somebody else let slip into this process is not for the child.
        // SAFETY: close_range with this flag closes nothing and takes no pointer; it marks descriptors to be closed by exec.
        unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        for number in &inherited {
            // SAFETY: the caller keeps the owners of these numbers until the child has executed, and a fork has its parent's
            // descriptors: they are open here.
            let descriptor = unsafe { BorrowedFd::borrow_raw(*number) };
            fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    };
    // SAFETY: `pre_exec` demands async-signal-safe code: the hook makes only prctl, getppid, rt_sigprocmask and fcntl
    // system calls on values made before the fork, and allocates nothing (errors are plain numbers).
    unsafe { command.pre_exec(hook) };
}
