//! A process in namespaces of its own, as another user, that ends with this one.
//!
//! *Flow.* clone3, then in the child: mounts, descriptors, network namespace, session, rights, exec. *Guarantees.* The
//! child gets exactly the descriptors it is given; killing it ends all that it ever started, where it has process numbers
//! of its own; the kernel kills it when the thread that started it ends. *Assumptions.* Between clone and exec only system
//! calls are made, on values that were made before: another thread may have held the allocator's lock.
#![expect(unsafe_code, reason = "clone3, execveat and pidfd_open have no safe form")]

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, dup2_stderr, dup2_stdin, dup2_stdout, pipe2, setsid, write};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use wiring::Owner;

use super::mounts::Step;
use super::spawn::{drop_rights, hand_over};

/// What is started, and as whom.
#[derive(Debug)]
pub(crate) struct Start {
    /// The program; it need not be in the folders that the process sees.
    pub(crate) program: OwnedFd,
    /// Its arguments, its name first.
    pub(crate) arguments: Vec<CString>,
    /// Its whole environment, as `NAME=value`.
    pub(crate) environment: Vec<CString>,
    /// Its standard input.
    pub(crate) input: OwnedFd,
    /// Its standard output and standard error.
    pub(crate) output: OwnedFd,
    /// The network namespace it runs in.
    pub(crate) netns: OwnedFd,
    /// User and group; it has no capabilities.
    pub(crate) owner: Owner,
    /// Another group it is in, if there is one that it cannot do without.
    pub(crate) group: Option<u32>,
    /// The descriptors it has besides 0, 1 and 2, under the numbers they have here.
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// What the process does not share with us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Walls {
    /// Process numbers, System V IPC, and the file systems that these steps make.
    All(Vec<Step>),
    /// Process numbers and System V IPC.
    Processes,
    /// It shares process numbers, IPC and file systems with us.
    None,
}

/// A step that the kernel refused, with the error as source.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Refused {
    what: String,
    /// Whether it would start with fewer walls.
    pub(crate) is_a_wall: bool,
    #[source]
    source: Errno,
}

impl Refused {
    /// The reason as a number.
    pub(crate) fn errno(&self) -> Errno {
        self.source
    }
}

impl Walls {
    fn flags(&self) -> CloneFlags {
        let processes = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC;
        match self {
            Self::All(_) => processes | CloneFlags::CLONE_NEWNS,
            Self::Processes => processes,
            Self::None => CloneFlags::empty(),
        }
    }

    fn steps(&self) -> &[Step] {
        match self {
            Self::All(steps) => steps,
            Self::Processes | Self::None => &[],
        }
    }
}

/// What comes after the mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Descriptors,
    Netns,
    Rights,
    Parent,
    Execute,
}

const STAGES: [(Stage, &str); 5] = [
    (Stage::Descriptors, "cannot hand down descriptors"),
    (Stage::Netns, "cannot enter the network namespace"),
    (Stage::Rights, "cannot become its user"),
    (Stage::Parent, "cannot be tied to its supervisor"),
    (Stage::Execute, "cannot be executed"),
];

/// Starts it; the result is its number as we see it.
///
/// # Errors
/// When the kernel refuses any step; no process is left then.
pub(crate) fn start(start: &Start, walls: &Walls) -> Result<Pid, Refused> {
    let refused = |what: &str, is_a_wall| {
        let what = what.to_owned();
        move |source| Refused { what, is_a_wall, source }
    };
    let (reading, writing) = pipe2(OFlag::O_CLOEXEC).map_err(refused("no pipe", false))?;
    let parent = pidfd_of(Pid::this()).map_err(refused("no descriptor for this process", false))?;
    let prepared = Prepared {
        start,
        steps: walls.steps(),
        groups: start.group.map(Gid::from_raw).into_iter().collect(),
        arguments: pointers(&start.arguments),
        environment: pointers(&start.environment),
        parent,
        report: writing,
    };
    // What would be told to a handler of ours must not be told to it in the child, whose pipes are ours.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).map_err(refused("no signal mask", false))?;
    let cloned = clone(walls.flags(), &prepared);
    let restored = before.thread_set_mask();
    let child = cloned.map_err(refused("no namespace for processes", !walls.flags().is_empty()))?;
    drop(prepared);
    let mut report = Vec::new();
    let read = File::from(reading).read_to_end(&mut report);
    let Some((place, errno)) = read.ok().and_then(|_| understood(&report)) else {
        return restored.map(|()| child).map_err(refused("no signal mask", false));
    };
    // It has ended: all that is left is its number.
    let _ = waitpid(child, None);
    Err(match (walls.steps().get(place), STAGES.get(place.saturating_sub(walls.steps().len()))) {
        (Some(step), _) => refused(&step.to_string(), true)(errno),
        (None, Some((_, what))) => refused(what, false)(errno),
        (None, None) => refused("cannot be started", false)(errno),
    })
}

/// Waits, in the runtime that this is called in, for the end of a process.
///
/// # Errors
/// As [`pidfd_of`], and when the runtime does not take the descriptor.
pub(crate) fn end_of(process: Pid) -> io::Result<AsyncFd<OwnedFd>> {
    let descriptor = pidfd_of(process)?;
    // SAFETY: the descriptor must stay open, and be the same, as long as the result lives: the result owns it.
    let registered = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    Ok(registered?)
}

/// A descriptor that is readable when a process has ended.
///
/// # Errors
/// When there is no such process, or the kernel is older than 5.3.
fn pidfd_of(process: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers.
    let number = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, process.as_raw(), 0) })?;
    let number = i32::try_from(number).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us, close-on-exec; it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn understood(report: &[u8]) -> Option<(usize, Errno)> {
    let (place, errno) = report.split_first_chunk::<4>()?;
    let errno = i32::from_ne_bytes(errno.try_into().ok()?);
    Some((usize::try_from(u32::from_ne_bytes(*place)).ok()?, Errno::from_raw(errno)))
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Everything the child needs, made before it is.
struct Prepared<'a> {
    start: &'a Start,
    steps: &'a [Step],
    groups: Vec<Gid>,
    arguments: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
    parent: OwnedFd,
    report: OwnedFd,
}

fn clone(flags: CloneFlags, prepared: &Prepared<'_>) -> nix::Result<Pid> {
    let signal = u64::from(libc::SIGCHLD.unsigned_abs());
    let flags = u64::from(flags.bits().cast_unsigned());
    // struct clone_args of linux/sched.h: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls.
    let arguments: [u64; 8] = [flags, 0, 0, 0, signal, 0, 0, 0];
    // SAFETY: clone3 reads as many bytes at the first argument as the second says. Without CLONE_VM the child has a copy of
    // all memory and goes on from here on a copy of this stack, as after fork. It never returns from `child`, which only
    // makes system calls.
    let cloned = unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments)) };
    match Errno::result(cloned)? {
        0 => prepared.child(),
        pid => i32::try_from(pid).map(Pid::from_raw).map_err(|_| Errno::EOVERFLOW),
    }
}

impl Prepared<'_> {
    /// The child from its first instruction to another program, or to its end.
    fn child(&self) -> ! {
        let (place, errno) = match self.become_it() {
            Ok(never) => match never {},
            Err(refused) => refused,
        };
        let mut report = [0; 8];
        let (first, second) = report.split_at_mut(4);
        first.copy_from_slice(&u32::try_from(place).unwrap_or(u32::MAX).to_ne_bytes());
        second.copy_from_slice(&(errno as i32).to_ne_bytes());
        // A parent that is gone needs no report.
        let _ = write(&self.report, &report);
        // SAFETY: _exit takes an integer, runs nothing of this program's and does not return.
        unsafe { libc::_exit(127) }
    }

    fn become_it(&self) -> Result<std::convert::Infallible, (usize, Errno)> {
        umask(Mode::empty());
        for (place, step) in self.steps.iter().enumerate() {
            step.carry_out().map_err(|errno| (place, errno))?;
        }
        let at = |stage: Stage| move |errno| (self.steps.len() + stage as usize, errno);
        self.hand_down().map_err(at(Stage::Descriptors))?;
        setns(&self.start.netns, CloneFlags::CLONE_NEWNET).map_err(at(Stage::Netns))?;
        self.lose_rights().map_err(at(Stage::Rights))?;
        self.end_with_parent().map_err(at(Stage::Parent))?;
        Err(at(Stage::Execute)(self.execute()))
    }

    fn hand_down(&self) -> nix::Result<()> {
        dup2_stdin(&self.start.input)?;
        dup2_stdout(&self.start.output)?;
        dup2_stderr(&self.start.output)?;
        hand_over(&self.start.descriptors)
    }

    fn lose_rights(&self) -> nix::Result<()> {
        setsid()?;
        drop_rights(self.start.owner, &self.groups)?;
        umask(Mode::S_IRWXG | Mode::S_IRWXO);
        // Kept until the program waits for them: the first process of a namespace is not sent what it does not handle.
        let waited_for: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
        waited_for.thread_set_mask()
    }

    /// Has the kernel kill this process when its parent's thread ends. A change of user forgets it, so it comes last.
    fn end_with_parent(&self) -> nix::Result<()> {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // A parent that ended before the line above would have been missed; its number says nothing in a namespace.
        let mut fds = [PollFd::new(self.parent.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::ZERO)? > 0 { Err(Errno::ESRCH) } else { Ok(()) }
    }

    fn execute(&self) -> Errno {
        let program = self.start.program.as_raw_fd();
        // SAFETY: both lists are of pointers to strings that end in zero, and end in a null pointer; the strings belong to
        // `start`, which outlives this call. On success there is no return.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                program,
                c"".as_ptr(),
                self.arguments.as_ptr(),
                self.environment.as_ptr(),
                libc::AT_EMPTY_PATH,
            )
        };
        Errno::last()
    }
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        io::Error::new(io::Error::from(refused.source).kind(), refused)
    }
}

#[cfg(test)]
#[path = "confined_tests.rs"]
mod tests;
