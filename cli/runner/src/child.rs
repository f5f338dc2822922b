//! A child process that is waited for by its descriptor, and killed when it is no longer wanted.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;

use crate::sys::confined::end_of;

/// A child of this process; dropped, it is killed.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    ended: AsyncFd<OwnedFd>,
    status: Option<ExitStatus>,
}

impl Child {
    /// A child that was just started and that nothing else waits for.
    ///
    /// # Errors
    /// When the kernel gives no descriptor for it. It is killed then.
    pub(crate) fn of(pid: Pid) -> io::Result<Self> {
        match end_of(pid) {
            Ok(ended) => Ok(Self { pid, ended, status: None }),
            Err(error) => {
                let _ = kill(pid, Signal::SIGKILL);
                let _ = waitpid(pid, None);
                Err(error)
            }
        }
    }

    /// Its number, until it was waited for.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.status.is_none().then(|| self.pid.as_raw().cast_unsigned())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When something else has waited for it.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.status {
                return Ok(status);
            }
            let mut ready = self.ended.readable().await?;
            match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(status) => self.status = exit_status(status),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            ready.clear_ready();
        }
    }

    /// Kills it; it is still to be waited for.
    ///
    /// # Errors
    /// When it was waited for.
    pub fn start_kill(&mut self) -> io::Result<()> {
        match self.status {
            Some(_) => Err(io::ErrorKind::InvalidInput.into()),
            None => Ok(kill(self.pid, Signal::SIGKILL)?),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.status.is_none() {
            // Its number is its own as long as it was not waited for.
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }
}

/// As wait(2) has it; `None` while it lives.
fn exit_status(status: WaitStatus) -> Option<ExitStatus> {
    const DUMPED: i32 = 0x80;
    match status {
        WaitStatus::Exited(_, code) => Some(ExitStatus::from_raw(code << 8)),
        WaitStatus::Signaled(_, signal, dumped) => {
            Some(ExitStatus::from_raw(signal as i32 | if dumped { DUMPED } else { 0 }))
        }
        _ => None,
    }
}
