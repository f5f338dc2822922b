//! The QEMU process: found, started with what it inherits, watched until it is gone, never left behind.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::counters::Account;
use crate::engine::EngineError;
use crate::orphans;
use crate::sys::child;

/// How much of what QEMU said last is kept.
const KEPT_STDERR_BYTES: usize = 8 << 10;
/// How much of it is logged in a minute: a guest's driver can make QEMU complain as often as it likes.
const LOGGED_STDERR_BYTES: usize = 32 << 10;
const MINUTE: Duration = Duration::from_secs(60);

/// Finds a program as a shell would.
pub(crate) fn find(program: &'static str, package: &'static str) -> Result<PathBuf, EngineError> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
        .ok_or(EngineError::Missing { program, package })
}

/// Signals a process, and is safe after it was reaped, when its number may belong to another process.
#[derive(Debug, Clone)]
pub(crate) struct Handle(Arc<Mutex<Option<Pid>>>);

impl Handle {
    /// Sends a signal; `false` when the process is gone.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        let pid = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pid.is_some_and(|pid| nix::sys::signal::kill(pid, signal).is_ok())
    }

    /// Process id while it lives.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(Pid::as_raw)
    }
}

/// A process that was just started and is not waited for yet.
#[derive(Debug)]
pub(crate) struct Started(Child);

impl Started {
    /// What it uses; opened before this process confines itself.
    pub(crate) fn account(&self) -> Option<Account> {
        Account::of(self.0.id())
    }
}

#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    handle: Handle,
    stderr: JoinHandle<String>,
}

/// How a process ended and what it said last.
#[derive(Debug)]
pub(crate) struct Exit {
    status: io::Result<ExitStatus>,
    pub(crate) stderr: String,
}

impl Exit {
    /// Whether it left by itself and content.
    pub(crate) fn is_success(&self) -> bool {
        self.status.as_ref().is_ok_and(ExitStatus::success)
    }

    /// How the process ended, with what it wrote to stderr last.
    pub(crate) fn describe(&self) -> String {
        let how = match &self.status {
            Ok(status) => match (status.code(), status.signal()) {
                (_, Some(signal)) => format!("QEMU was killed by signal {signal}"),
                (code, None) => format!("QEMU exited with code {}", code.unwrap_or_default()),
            },
            Err(error) => format!("QEMU is gone: {error}"),
        };
        match self.stderr.trim() {
            "" => how,
            said => format!("{how}: {said}"),
        }
    }
}

impl Process {
    /// Executes `program` so that it inherits `descriptors`, dies with the calling *thread*, cannot gain privileges, and opens
    /// only what a Landlock ruleset lets it. Makes no thread.
    pub(crate) fn spawn(
        program: &Path,
        arguments: &[String],
        descriptors: &[OwnedFd],
        ruleset: Option<OwnedFd>,
    ) -> Result<Started, EngineError> {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // A terminal's Ctrl-C is for the launcher, which asks the guest first.
        command.process_group(0);
        let numbers: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        child::prepare(&mut command, numbers, ruleset);
        let child = orphans::spawn(&mut command);
        child.map(Started).map_err(|source| EngineError::Spawn { program: program.to_owned(), source })
    }

    /// Logs and keeps what it writes to standard error, in a thread.
    pub(crate) fn follow(Started(mut child): Started) -> Self {
        let pid = i32::try_from(child.id()).ok().map(Pid::from_raw);
        let pipe = child.stderr.take();
        let span = tracing::Span::current();
        let stderr = thread::spawn(move || span.in_scope(|| pipe.map(keep_tail).unwrap_or_default()));
        Self { child, handle: Handle(Arc::new(Mutex::new(pid))), stderr }
    }

    /// A handle that can signal the process until it has been waited for.
    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits for the exit and for the end of stderr; from then on no handle signals the process.
    pub(crate) fn wait(mut self) -> Exit {
        if let Some(pid) = self.handle.pid() {
            // WNOWAIT: it stays a zombie and keeps its number until the handle can no longer signal it.
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            while waitid(Id::Pid(Pid::from_raw(pid)), flags) == Err(nix::errno::Errno::EINTR) {}
        }
        *self.handle.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let number = self.child.id();
        let status = self.child.wait();
        orphans::forget(number);
        let stderr = self.stderr.join().unwrap_or_default();
        Exit { status, stderr }
    }
}

fn keep_tail(mut pipe: impl Read) -> String {
    let mut kept = Vec::new();
    let mut chunk = [0; 1024];
    let (mut minute, mut logged) = (now(), 0);
    while let Ok(read @ 1..) = pipe.read(&mut chunk) {
        let fresh = chunk.get(..read).unwrap_or_default();
        if minute.elapsed() >= MINUTE {
            if logged > LOGGED_STDERR_BYTES {
                tracing::warn!(bytes = logged - LOGGED_STDERR_BYTES, "more output of QEMU in a minute than is logged");
            }
            (minute, logged) = (now(), 0);
        }
        logged += read;
        if logged <= LOGGED_STDERR_BYTES {
            tracing::warn!(stderr = String::from_utf8_lossy(fresh).trim_end(), "qemu");
        }
        kept.extend_from_slice(fresh);
        let excess = kept.len().saturating_sub(KEPT_STDERR_BYTES);
        kept.drain(..excess);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[expect(clippy::disallowed_methods, reason = "the edge: real processes take real time")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confine::landlock::{self, Access};

    fn shell(script: &str, descriptors: &[OwnedFd]) -> Process {
        let arguments = ["-c".into(), script.into()];
        Process::follow(Process::spawn(Path::new("/bin/sh"), &arguments, descriptors, None).unwrap())
    }

    #[test]
    fn the_last_words_and_the_code_are_kept() {
        let exit = shell("echo cannot open disk >&2; exit 3", &[]).wait();
        assert!(!exit.is_success());
        assert_eq!(exit.describe(), "QEMU exited with code 3: cannot open disk");
    }

    #[test]
    fn a_killed_process_says_so_and_its_handle_goes_dead() {
        let process = shell("exec sleep 60", &[]);
        let handle = process.handle();
        assert!(handle.signal(Signal::SIGKILL));
        assert_eq!(process.wait().describe(), "QEMU was killed by signal 9");
        assert!(!handle.signal(Signal::SIGKILL));
        assert_eq!(handle.pid(), None);
    }

    #[test]
    fn exactly_the_named_descriptors_are_inherited() {
        let named = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        // As a careless parent leaves it: without close-on-exec.
        let other = std::fs::File::open("/dev/null").unwrap();
        nix::fcntl::fcntl(&other, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
        let number = named.as_raw_fd();
        let script = format!("test -e /proc/self/fd/{number} && ! test -e /proc/self/fd/{}", other.as_raw_fd());
        assert!(shell(&script, &[named]).wait().is_success());
    }

    // spec: ISO-5
    #[test]
    fn what_the_rules_do_not_name_cannot_be_opened() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "secret").unwrap();
        let access = Access { execute: landlock::programs(Path::new("/bin/sh")), ..Access::default() };
        // A kernel without Landlock has no rules: that it has them is asked of it by a trial that says so.
        let Some(ruleset) = landlock::ruleset(&access).unwrap() else { return };
        let script = format!("cat /usr/bin/env >/dev/null; cat {} || echo refused", secret.display());
        let arguments = ["-c".to_owned(), format!("({script}) >&2")];
        let process = Process::spawn(Path::new("/bin/sh"), &arguments, &[], Some(ruleset)).unwrap();
        let exit = Process::follow(process).wait();
        assert!(exit.stderr.ends_with("Permission denied\nrefused\n"), "{}", exit.describe());
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let error = find("no-such-program-anywhere", "some-package").unwrap_err().to_string();
        assert_eq!(error, "no-such-program-anywhere is not installed, the package is some-package");
    }
}
