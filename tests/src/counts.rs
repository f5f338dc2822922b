//! What a process does, counted: system calls and most memory in use under ptrace, instructions in user space by callgrind.
//!
//! Processor counters would tell instructions in the kernel too, but virtual machines often have none.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::{Program, World, inside};

/// Counts of one run, of all its processes together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Of all processes.
    pub system_calls: u64,
    /// Those that executed a program.
    pub processes: u64,
    /// Of the largest process.
    pub peak_rss_bytes: u64,
    /// Memory that no file backs and no other process shares (RssAnon of `/proc/PID/status`), of the largest process when it
    /// ends.
    pub private_bytes: u64,
}

/// Instructions that one run of a program of one process executes in user space; `None` without valgrind, or
/// when it gave up.
///
/// # Panics
/// When the program fails.
#[must_use]
pub fn instructions(world: &World, program: &Program) -> Option<u64> {
    let (exec, _output) = program.command();
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(exec.get_program()).args(exec.get_args());
    valgrind.env_clear().envs(exec.get_envs().filter_map(|(name, value)| Some((name, value?))));
    valgrind.stdin(program.input()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = inside(world, || valgrind.output()).ok()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // Programs in Go, which signal themselves, are now and then more than callgrind can follow.
    let gave_up = said.contains("Callgrind: ") && said.contains("Assertion");
    assert!(gave_up || output.status.success(), "{} failed under valgrind: {said}", program.path.display());
    said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}

/// Runs the program under ptrace in a world.
///
/// # Panics
/// When the program fails.
#[must_use]
pub fn count(world: &World, program: &Program) -> Counts {
    // The world's own /proc knows processes by other numbers than waiting does.
    let processes = File::open("/proc").expect("/proc is mounted");
    inside(world, || count_here(program, processes))
}

fn count_here(program: &Program, processes: File) -> Counts {
    let root = seized(program, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEEXIT);
    let mut tracer = Tracer { processes, root, began: false, inside: BTreeMap::new(), counts: Counts::default() };
    loop {
        match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Ok(status) => tracer.on(status, &program.path.display().to_string()),
            Err(Errno::EINTR) => {}
            Err(_) => return tracer.counts,
        }
    }
}

/// A stopped shell under ptrace with `options` that executes the program when it continues: [`libc::PTRACE_EVENT_EXEC`] separates
/// the shell's calls from the program's. The caller waits for it and all that it starts.
///
/// # Panics
/// When there is no shell or the caller may not trace it.
#[must_use]
#[expect(clippy::zombie_processes, reason = "the caller waits for every traced process")]
pub fn seized(program: &Program, options: Options) -> Pid {
    let (exec, _output) = program.command();
    let mut shell = Command::new("/bin/sh");
    // Once it has stopped itself it can be seized; what counts begins when it has become the program.
    shell.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]).arg(exec.get_program()).args(exec.get_args());
    shell.env_clear().envs(exec.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir("/");
    shell.stdin(program.input()).stdout(Stdio::null());
    let child = shell.spawn().expect("a shell starts");
    let root = Pid::from_raw(child.id().cast_signed());
    waitpid(root, Some(WaitPidFlag::WUNTRACED)).expect("the shell stops itself");
    let always = Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(root, always | options).expect("root may trace its child");
    root
}

struct Tracer {
    processes: File,
    root: Pid,
    began: bool,
    /// Whether each thread is inside a system call.
    inside: BTreeMap<Pid, bool>,
    counts: Counts,
}

impl Tracer {
    fn on(&mut self, status: WaitStatus, name: &str) {
        match status {
            WaitStatus::PtraceSyscall(thread) => {
                let inside = self.inside.entry(thread).or_default();
                *inside = !*inside;
                self.counts.system_calls += u64::from(*inside && self.began);
                resume(thread, None);
            }
            WaitStatus::PtraceEvent(thread, _, event) => {
                self.on_event(thread, event);
                resume(thread, None);
            }
            WaitStatus::Stopped(thread, signal) => {
                let signal = (signal != Signal::SIGSTOP).then_some(signal);
                resume(thread, signal);
            }
            WaitStatus::Exited(pid, code) if pid == self.root => assert_eq!(code, 0, "{name} failed under ptrace"),
            _ => {}
        }
    }

    fn on_event(&mut self, thread: Pid, event: i32) {
        match event {
            libc::PTRACE_EVENT_EXEC => {
                self.began = true;
                self.counts.processes += 1;
                self.inside.insert(thread, true);
            }
            libc::PTRACE_EVENT_EXIT if self.began => {
                let [peak, private] = self.memory_bytes(thread, ["VmHWM:", "RssAnon:"]);
                self.counts.peak_rss_bytes = self.counts.peak_rss_bytes.max(peak);
                self.counts.private_bytes = self.counts.private_bytes.max(private);
            }
            _ => {}
        }
    }

    /// Figures of a process's status by their names.
    fn memory_bytes(&self, process: Pid, names: [&str; 2]) -> [u64; 2] {
        let path = format!("{process}/status");
        let opened = openat(&self.processes, path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
        let mut status = String::new();
        let read = opened.map(|file| File::from(file).read_to_string(&mut status));
        assert!(matches!(read, Ok(Ok(_))), "the status of process {process} cannot be read: {read:?}");
        names.map(|name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            kibibytes.unwrap_or(0) * 1024
        })
    }
}

fn resume(thread: Pid, signal: Option<Signal>) {
    // A thread that was killed meanwhile is waited for all the same.
    let _ = ptrace::syscall(thread, signal);
}
