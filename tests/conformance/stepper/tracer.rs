//! The ptrace loop: resumes every thread from stop to stop, counts the steps and strikes at the chosen one.

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;
use nix::libc::user_regs_struct;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::memory::Memory;
use super::netlink;
use super::step::{Entry, Recognised, Step, StepKind, recognise};
use super::{Fault, Trouble};

/// `PTRACE_EVENT_EXEC` of `linux/ptrace.h`.
const EVENT_EXEC: i32 = libc::PTRACE_EVENT_EXEC;

/// What a trace brought.
#[derive(Debug)]
pub(super) struct Traced {
    pub(super) status: i32,
    pub(super) steps: Vec<Step>,
    pub(super) struck: bool,
}

/// What to do when a thread leaves the call that it is in.
#[derive(Debug, Clone, Copy)]
enum AtExit {
    Nothing,
    Fail(Errno),
    Kill,
    /// The call receives: answers to a spoiled message are in its buffer.
    Rewrite {
        from: Entry,
        seq: u32,
        errno: Errno,
    },
}

/// A message that the kernel was made to refuse. Another socket may number its messages alike.
#[derive(Debug, Clone, Copy)]
struct Spoiled {
    socket: u64,
    seq: u32,
    errno: Errno,
}

struct Tracer {
    plugin: Pid,
    fault: Fault,
    steps: Vec<Step>,
    struck: bool,
    /// Steps count from the plugin's own start, not the shell's.
    has_started: bool,
    /// Threads inside a system call.
    inside: BTreeMap<Pid, AtExit>,
    tasks: BTreeSet<Pid>,
    spoiled: Option<Spoiled>,
    status: i32,
}

/// Traces a stopped child to its end.
pub(super) fn trace(plugin: Pid, fault: Fault) -> Result<Traced, Trouble> {
    waitpid(plugin, Some(WaitPidFlag::WUNTRACED)).map_err(Trouble::system("wait for the plugin's shell"))?;
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(plugin, options).map_err(Trouble::system("trace the plugin"))?;
    let mut tracer = Tracer {
        plugin,
        fault,
        steps: Vec::new(),
        struck: false,
        has_started: false,
        inside: BTreeMap::new(),
        tasks: BTreeSet::from([plugin]),
        spoiled: None,
        status: 0,
    };
    while let Some(status) = next_stop()? {
        tracer.on(status);
    }
    Ok(Traced { status: tracer.status, steps: tracer.steps, struck: tracer.struck })
}

/// The next stop or end of any traced thread; `None` when none is left. Never reaps another thread's children.
fn next_stop() -> Result<Option<WaitStatus>, Trouble> {
    loop {
        match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Ok(status) => return Ok(Some(status)),
            Err(Errno::ECHILD) => return Ok(None),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(Trouble::system("wait for the traced plugin")(error)),
        }
    }
}

impl Tracer {
    fn on(&mut self, status: WaitStatus) {
        match status {
            WaitStatus::PtraceSyscall(tid) => self.on_call(tid),
            WaitStatus::PtraceEvent(tid, _, event) => {
                self.tasks.insert(tid);
                self.has_started |= event == EVENT_EXEC && tid == self.plugin;
                resume(tid, None);
            }
            WaitStatus::Stopped(tid, signal) => {
                self.tasks.insert(tid);
                resume(tid, Some(signal));
            }
            WaitStatus::Exited(tid, code) => self.ended(tid, code << 8),
            WaitStatus::Signaled(tid, signal, _) => self.ended(tid, signal as i32),
            WaitStatus::Continued(_) | WaitStatus::StillAlive => {}
        }
    }

    fn ended(&mut self, tid: Pid, status: i32) {
        self.tasks.remove(&tid);
        self.inside.remove(&tid);
        if tid == self.plugin {
            self.status = status;
        }
    }

    fn on_call(&mut self, tid: Pid) {
        let Ok(regs) = ptrace::getregs(tid) else { return };
        match self.inside.remove(&tid) {
            None => {
                let at_exit = self.on_entry(tid, regs);
                self.inside.insert(tid, at_exit);
            }
            Some(at_exit) => self.on_exit(tid, regs, at_exit),
        }
        resume(tid, None);
    }

    fn on_entry(&mut self, tid: Pid, regs: user_regs_struct) -> AtExit {
        let entry = Entry { number: regs.orig_rax.cast_signed(), args: [regs.rdi, regs.rsi, regs.rdx] };
        if let (libc::SYS_recvfrom | libc::SYS_recvmsg, Some(Spoiled { socket, seq, errno })) =
            (entry.number, self.spoiled)
            && socket == regs.rdi
        {
            return AtExit::Rewrite { from: entry, seq, errno };
        }
        if !self.has_started {
            return AtExit::Nothing;
        }
        let Some(memory) = Memory::of(tid) else { return AtExit::Nothing };
        let Some(found) = recognise(entry, &memory, tid == self.plugin || is_thread_of(tid, self.plugin)) else {
            return AtExit::Nothing;
        };
        let number = self.steps.len();
        let at_exit =
            if self.fault.step() == Some(number) { self.strike(tid, regs, &memory, &found) } else { AtExit::Nothing };
        self.steps.push(found.step);
        at_exit
    }

    fn strike(&mut self, tid: Pid, mut regs: user_regs_struct, memory: &Memory, found: &Recognised) -> AtExit {
        self.struck = true;
        match self.fault {
            Fault::Nothing => AtExit::Nothing,
            Fault::KillBefore { .. } => {
                self.kill();
                AtExit::Nothing
            }
            Fault::KillInBatch { messages, .. } => {
                let end = found.messages.get(messages).map(|message| message.offset as u64);
                self.struck = end.is_some_and(|end| shorten(tid, regs, memory, end));
                if self.struck { AtExit::Kill } else { AtExit::Nothing }
            }
            Fault::Refuse { message, errno, .. } => match (&found.step.kind, found.messages.get(message)) {
                (StepKind::Netlink { is_nfnetlink, .. }, Some(message)) => {
                    self.struck = netlink::spoil(memory, message, *is_nfnetlink).is_some();
                    self.spoiled = Some(Spoiled { socket: regs.rdi, seq: message.seq, errno });
                    AtExit::Nothing
                }
                (StepKind::Netlink { .. }, None) => {
                    self.struck = false;
                    AtExit::Nothing
                }
                _ => {
                    // No system call has this number: the kernel does nothing, and we write the answer.
                    regs.orig_rax = u64::MAX;
                    self.struck = ptrace::setregs(tid, regs).is_ok();
                    AtExit::Fail(errno)
                }
            },
        }
    }

    fn on_exit(&mut self, tid: Pid, mut regs: user_regs_struct, at_exit: AtExit) {
        match at_exit {
            AtExit::Nothing => {}
            AtExit::Fail(errno) => {
                regs.rax = i64::from(-(errno as i32)).cast_unsigned();
                self.struck &= ptrace::setregs(tid, regs).is_ok();
            }
            AtExit::Kill => self.kill(),
            AtExit::Rewrite { from, seq, errno } => {
                let _unread = rewrite(tid, regs, from, seq, errno);
            }
        }
    }

    /// SIGKILL for every process of the tree; a call at its entry does not run any more.
    fn kill(&self) {
        for task in &self.tasks {
            let _gone = kill(*task, Signal::SIGKILL);
        }
    }
}

fn rewrite(tid: Pid, regs: user_regs_struct, from: Entry, seq: u32, errno: Errno) -> Option<()> {
    let received = usize::try_from(regs.rax.cast_signed()).ok()?;
    let memory = Memory::of(tid)?;
    let pieces = match from.number {
        libc::SYS_recvmsg => memory.pieces(from.args[1])?,
        _ => vec![(from.args[1], usize::try_from(from.args[2]).ok()?)],
    };
    netlink::rewrite_errors(&memory, &pieces, received, seq, errno as i32)
}

/// Lets a send hand over only its first bytes. A scattered batch is left alone: only nftables' have several pieces, and
/// they take effect whole or not at all.
fn shorten(tid: Pid, mut regs: user_regs_struct, memory: &Memory, bytes: u64) -> bool {
    if regs.orig_rax.cast_signed() == libc::SYS_sendto {
        regs.rdx = bytes;
        return ptrace::setregs(tid, regs).is_ok();
    }
    let vector = memory.read_u64(regs.rsi + 16);
    let is_single = memory.read_u64(regs.rsi + 24) == Some(1);
    is_single && vector.and_then(|vector| memory.write(vector + 8, &bytes.to_ne_bytes())).is_some()
}

fn is_thread_of(tid: Pid, process: Pid) -> bool {
    std::path::Path::new(&format!("/proc/{process}/task/{tid}")).exists()
}

/// Lets a thread run to its next stop; one that was killed meanwhile needs nothing.
fn resume(tid: Pid, signal: Option<Signal>) {
    let _gone = ptrace::syscall(tid, signal);
}
