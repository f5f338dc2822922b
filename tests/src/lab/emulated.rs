//! The host of the lab under QEMU: an emulated AMD processor with SVM, so that its kernel offers a real KVM.

use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use machine::base64;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::{Finished, image};
use crate::dist::workspace;

/// From QEMU's start to the agent's first word; 5 to 10 s on an idle machine.
const BOOT: Duration = Duration::from_secs(180);
/// What an answer may take beyond the script's own limit.
const ANSWER: Duration = Duration::from_secs(90);
/// A host that says nothing for so long hangs: it says every three seconds that it lives, by the machine's clock.
const SILENCE: Duration = Duration::from_secs(75);
/// From a non-maskable interrupt until a host that hangs has written what its tasks do.
const REPORT: Duration = Duration::from_secs(30);
const MEMORY_MIB: &str = "4096";
/// Of the host's kernel: on a non-maskable interrupt it writes what each task and each processor does (bits 0 and 6 of
/// panic_print) and ends. It takes a timer that does not tick while the machine has no time for QEMU for broken, and a boot
/// without it for impossible, unless it is told not to look.
const KERNEL: &str = "console=ttyS0 panic=-1 quiet unknown_nmi_panic=1 panic_print=0x41 no_timer_check";

/// The host has not answered, or QEMU has ended.
#[derive(Debug)]
pub struct Hang {
    after: Duration,
    ended: Option<ExitStatus>,
    console: String,
}

impl fmt::Display for Hang {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ended {
            Some(status) => write!(f, "QEMU ended with {status} after {} s", self.after.as_secs())?,
            None => write!(f, "no answer for {} s", self.after.as_secs())?,
        }
        write!(f, "; errors of QEMU, console of the host, and its processors' registers:\n{}", self.console)
    }
}

/// How an emulated host's time passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    /// With the machine's.
    Wall,
    /// A nanosecond for each instruction of its one processor; idle time passes at once.
    Instructions,
}

/// A booted host. QEMU ends with it.
#[derive(Debug)]
pub(super) struct Emulated {
    qemu: Child,
    agent: BufReader<UnixStream>,
    folder: TempDir,
    requests: u32,
    /// The longest that it says nothing while it runs a script.
    silence: Duration,
}

impl Emulated {
    /// Boots it.
    ///
    /// # Errors
    /// When it does not boot.
    pub(super) fn boot(programs: &[PathBuf], clock: Clock) -> Result<Self, Hang> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("agent");
        let listener = UnixListener::bind(&socket).expect("a socket for the agent");
        // QEMU has mapped it when the host answers.
        let initrd = initrd(programs);
        let mut command = qemu(&initrd, clock);
        // To say that it lives takes a counting host instructions.
        let alive = if clock == Clock::Wall { "lab.alive" } else { "" };
        command.args(["-append", &format!("{KERNEL} {alive}")]).arg("-monitor");
        command.arg(format!("unix:{},server=on,wait=off", folder.path().join("monitor").display()));
        command.arg("-serial").arg(format!("file:{}", folder.path().join("console").display()));
        command.arg("-serial").arg(format!("unix:{}", socket.display()));
        let errors = File::create(folder.path().join("errors")).expect("a file for QEMU's errors");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let started = Instant::now();
        let mut qemu = command.spawn().expect("taskset and setpriv of util-linux start QEMU");
        let Some(agent) = accept(&listener, &mut qemu) else {
            let ended = qemu.try_wait().expect("QEMU is a child of this process");
            drop(qemu.kill().and_then(|()| qemu.wait()));
            let console = std::fs::read_to_string(folder.path().join("errors")).unwrap_or_default();
            return Err(Hang { after: started.elapsed(), ended, console });
        };
        let silence = if clock == Clock::Wall { SILENCE } else { Duration::MAX };
        let mut host = Self { qemu, agent: BufReader::new(agent), folder, requests: 0, silence };
        let ready = host.line_until(started + BOOT);
        if ready.as_deref() == Some("READY") { Ok(host) } else { Err(host.hang(started.elapsed(), 0)) }
    }

    /// Runs a script to its end.
    ///
    /// # Errors
    /// When there is no answer long after the script's own limit, or no sign of life meanwhile.
    pub(super) fn run(&mut self, script: &str, limit: Duration) -> Result<Finished, Hang> {
        let logged = self.console_length();
        self.requests += 1;
        let id = self.requests.to_string();
        let line = format!("{id} {} {}\n", limit.as_secs(), base64::encode(script.as_bytes()));
        let started = Instant::now();
        let most = limit + ANSWER;
        if self.agent.get_mut().write_all(line.as_bytes()).is_err() {
            return Err(self.hang(started.elapsed(), logged));
        }
        let (begin, end) = (format!("BEGIN {id}"), format!("END {id} "));
        let mut encoded = String::new();
        loop {
            let left = most.saturating_sub(started.elapsed()).min(self.silence);
            let Some(line) = self.line_until(Instant::now() + left) else {
                return Err(self.hang(started.elapsed(), logged));
            };
            if line == "ALIVE" {
                continue;
            }
            match line.strip_prefix(&end) {
                Some(code) => {
                    let bytes = base64::decode(&encoded).expect("the agent sends base64");
                    let output = String::from_utf8_lossy(&bytes).into_owned();
                    let code = code.parse().expect("the agent sends a number");
                    return Ok(Finished { code, output, console: self.console(logged) });
                }
                None if line == begin => encoded.clear(),
                None => encoded.push_str(&line),
            }
        }
    }

    /// Has the host write what it does, and ends it.
    fn hang(&mut self, after: Duration, logged: usize) -> Hang {
        let errors = std::fs::read_to_string(self.folder.path().join("errors")).unwrap_or_default();
        let ended = self.qemu.try_wait().expect("QEMU is a child of this process");
        if ended.is_some() {
            return Hang { after, ended, console: format!("{errors}\n{}", self.console(logged)) };
        }
        let asked = UnixStream::connect(self.folder.path().join("monitor")).and_then(|mut monitor| {
            monitor.write_all(b"info registers -a\ninfo lapic\nnmi\n")?;
            // Answered until QEMU ends, with the kernel's end.
            monitor.set_read_timeout(Some(REPORT))?;
            let mut answer = Vec::new();
            drop(monitor.read_to_end(&mut answer));
            Ok(answer)
        });
        let answer = asked.unwrap_or_else(|error| format!("the monitor: {error}").into_bytes());
        let console = format!("{errors}\n{}\n{}", self.console(logged), String::from_utf8_lossy(&answer));
        Hang { after, ended, console }
    }

    /// A line of the agent without its end; nothing when there is none by `deadline`.
    fn line_until(&mut self, deadline: Instant) -> Option<String> {
        let mut line = Vec::new();
        loop {
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            self.agent.get_ref().set_read_timeout(Some(left)).expect("a socket has a time limit");
            match self.agent.read_until(b'\n', &mut line) {
                Ok(0) => return None,
                Ok(_) if line.ends_with(b"\n") => return Some(String::from_utf8_lossy(&line).trim_end().to_owned()),
                Ok(_) => {}
                Err(error) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => {}
                Err(_) => return None,
            }
        }
    }

    fn console_length(&self) -> usize {
        std::fs::metadata(self.folder.path().join("console")).map_or(0, |data| usize::try_from(data.len()).unwrap_or(0))
    }

    /// What the kernel wrote from byte `from` on.
    fn console(&self, from: usize) -> String {
        let bytes = std::fs::read(self.folder.path().join("console")).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned()
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        drop(self.qemu.kill());
        drop(self.qemu.wait());
    }
}

/// The connection of QEMU's second serial port; nothing when QEMU ends, or makes none.
fn accept(listener: &UnixListener, qemu: &mut Child) -> Option<UnixStream> {
    listener.set_nonblocking(true).expect("a socket need not block");
    let deadline = Instant::now() + BOOT;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).expect("a socket may block");
                return Some(stream);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("the agent's socket: {error}"),
        }
        if qemu.try_wait().expect("QEMU is a child of this process").is_some() || Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One of the processors that this process may use, as taskset names it: each process takes another.
fn one_processor() -> String {
    let allowed = sched_getaffinity(Pid::this()).expect("Linux tells a process its processors");
    let allowed: Vec<usize> = (0..CpuSet::count()).filter(|at| allowed.is_set(*at).unwrap_or_default()).collect();
    let index = usize::try_from(std::process::id()).unwrap_or_default() % allowed.len();
    allowed[index].to_string()
}

/// QEMU up to its serial ports and kernel command line. It ends with this process, however that ends.
///
/// It has one processor. Of two, each in a thread of QEMU, both now and then stay for good in the handler of a breakpoint while
/// the kernel patches its own code, which KVM makes it do with the first and the last machine.
fn qemu(initrd: &File, clock: Clock) -> Command {
    // In hosts that hung a timer's interrupt was pending in the APIC and the processor had not been told. Most likely QEMU 7.2
    // lost it: the thread of a processor with SVM clears bits of what is pending without the lock under which other threads set
    // some. With all threads on one processor of the machine none comes between another's reading and writing.
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &one_processor(), "setpriv"]);
    command.args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-accel", "tcg", "-cpu", "EPYC,+svm,+npt"]);
    command.args(["-smp", "1"]);
    if clock == Clock::Instructions {
        command.args(["-icount", "shift=0,sleep=off"]);
    }
    // The option ROMs of a display and a NIC would cost seconds.
    command.args(["-M", "q35", "-m", MEMORY_MIB, "-nodefaults", "-display", "none", "-vga", "none"]);
    command.args(["-nic", "none", "-no-reboot", "-kernel"]).arg(image("vmlinuz"));
    command.arg("-initrd").arg(format!("/proc/{}/fd/{}", std::process::id(), initrd.as_raw_fd()));
    command
}

/// The host's file system and the programs under test, in memory: a disk may be full, and a process that is killed would leave
/// 250 MB on it. A kernel unpacks archives that follow each other into one file system.
fn initrd(programs: &[PathBuf]) -> File {
    let both = memfd_create("initrd", MFdFlags::MFD_CLOEXEC).expect("a file in memory for the host's initrd");
    let mut both = File::from(both);
    let host = image("host.cpio");
    let copied = File::open(&host).and_then(|mut file| std::io::copy(&mut file, &mut both));
    copied.unwrap_or_else(|error| panic!("{} cannot be copied into memory: {error}", host.display()));
    let packer = workspace().join("tests/lab/programs");
    // The copy of the descriptor goes on where this one is.
    let end = both.try_clone().expect("a second descriptor of a file in memory");
    let packed = Command::new(&packer).args(programs).stdin(Stdio::null()).stdout(end).stderr(Stdio::piped()).output();
    let packed = packed.unwrap_or_else(|error| panic!("{} cannot be executed: {error}", packer.display()));
    let errors = String::from_utf8_lossy(&packed.stderr);
    assert!(packed.status.success(), "{} ended with {}: {errors}", packer.display(), packed.status);
    both
}

/// A shell in the host on this terminal, until it ends.
pub(super) fn shell(programs: &[PathBuf]) {
    let initrd = initrd(programs);
    let mut command = qemu(&initrd, Clock::Wall);
    command.args(["-append", &format!("{KERNEL} lab.shell"), "-serial", "mon:stdio"]);
    let status = command.status().expect("setpriv of util-linux starts QEMU");
    assert!(status.success(), "QEMU ended with {status}");
}
