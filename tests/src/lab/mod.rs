//! The lab: a host with a real KVM, vhost-net and 802.1Q, in which cases run as shell scripts.
//!
//! Flow: the first case boots the host, or finds that this machine's own KVM runs code; each case then is one script.
//! Guarantees: nothing that a script started is left when the next begins, and a host that does not boot or answer is restarted
//! once in a run; one that counts instructions, more often. Assumptions: `tests/setup lab` has built the image, `make build` the programs.

mod emulated;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::dist::{cache_file, dist_file};
pub use emulated::Hang;
use emulated::{Clock, Emulated};

/// How long a script may run on a machine with a real KVM beyond its own limit, before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// Restarts in a run. With a clock of instructions some sequences of events never end (QEMU waits for a timer that waits for
/// it), and a new boot has another.
const RESTARTS: u32 = 1;
const RESTARTS_COUNTING: u32 = 5;

/// What a script did.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; 124 or 143 when its time was over.
    pub code: i32,
    /// All that it wrote.
    pub output: String,
    /// What the host's kernel wrote on its console meanwhile.
    pub console: String,
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the script ended with {}:\n{}", self.code, self.output)?;
        if self.console.is_empty() { Ok(()) } else { write!(f, "\n-- console of the host:\n{}", self.console) }
    }
}

/// Where scripts run.
#[derive(Debug)]
enum Place {
    /// This machine, whose KVM runs code.
    Machine,
    /// A host under QEMU; absent until the first script, and after a hang.
    Emulated(Option<Emulated>, Clock),
}

/// A host for cases.
#[derive(Debug)]
pub struct Lab {
    place: Place,
    programs: Vec<PathBuf>,
    restarts_left: u32,
    /// Why the host does not boot, once it may not be tried again: no case then waits for another boot.
    broken: Option<String>,
}

impl Lab {
    /// The lab of this machine, not booted yet. `programs` are put where a script finds them by name.
    ///
    /// # Panics
    /// When the launcher is not built or does not answer.
    #[must_use]
    pub fn new(programs: Vec<PathBuf>) -> Self {
        let place = if has_real_kvm() { Place::Machine } else { Place::Emulated(None, Clock::Wall) };
        Self { place, programs, restarts_left: RESTARTS, broken: None }
    }

    /// An emulated host whose clock counts the instructions of its one processor as nanoseconds, not booted yet: what a script
    /// measures with it is the same on every machine, however busy.
    #[must_use]
    pub fn counting(programs: Vec<PathBuf>) -> Self {
        let place = Place::Emulated(None, Clock::Instructions);
        Self { place, programs, restarts_left: RESTARTS_COUNTING, broken: None }
    }

    /// Runs a shell script to its end. `$LAB` holds `bin` (in its PATH), `guest` (bzImage, vmlinux, initrd) and `images` (what manifests boot); `$IP` is
    /// iproute2's `ip`.
    /// A host that does not boot, or hangs, is restarted and the script begins again, as often in a run as this lab allows.
    ///
    /// # Panics
    /// When the host cannot be started, or hangs once more; with its console.
    pub fn run(&mut self, case: &str, script: &str, limit: Duration) -> Finished {
        assert!(self.broken.is_none(), "the host did not boot earlier: {}", self.broken.as_deref().unwrap_or_default());
        match &mut self.place {
            Place::Machine => on_this_machine(&self.programs, script, limit),
            Place::Emulated(host, clock) => {
                let booted = match host.take() {
                    Some(running) => Ok(running),
                    None => Emulated::boot(&self.programs, *clock),
                };
                let is_booted = booted.is_ok();
                let ran = booted.and_then(|mut running| running.run(script, limit).map(|finished| (running, finished)));
                let hang = match ran {
                    Ok((running, finished)) => {
                        *host = Some(running);
                        return finished;
                    }
                    Err(hang) => hang,
                };
                if self.restarts_left == 0 && !is_booted {
                    self.broken = Some(hang.to_string().lines().next().unwrap_or_default().to_owned());
                }
                assert!(self.restarts_left > 0, "the host hung once more in {case:?}\n{hang}");
                self.restarts_left -= 1;
                eprintln!("lab: the host hung in {case:?} and is restarted\n{hang}");
                self.run(case, script, limit)
            }
        }
    }

    /// Whether scripts run on this machine and not in a host of their own.
    #[must_use]
    pub fn is_machine(&self) -> bool {
        matches!(self.place, Place::Machine)
    }
}

/// A shell in the host on this terminal, until it ends.
///
/// # Panics
/// When QEMU cannot be executed.
pub fn shell(programs: &[PathBuf]) {
    emulated::shell(programs);
}

/// Whether /dev/kvm of this machine runs code, by the launcher's own probe.
fn has_real_kvm() -> bool {
    let output = Command::new(dist_file("tapvisor-launcher")).arg("probe").output().expect("the launcher starts");
    let probe: serde_json::Value = serde_json::from_slice(&output.stdout).expect("the probe prints JSON");
    probe["kvm"] == "usable"
}

fn on_this_machine(programs: &[PathBuf], script: &str, limit: Duration) -> Finished {
    let lab = tempfile::tempdir().expect("a temporary folder");
    let bin = lab.path().join("bin");
    std::fs::create_dir(&bin).expect("a folder for programs");
    for program in programs {
        let name = program.file_name().expect("a program has a name");
        std::os::unix::fs::symlink(program, bin.join(name)).expect("a link to a program");
    }
    for folder in ["guest", "images"] {
        let target = cache_file(&format!("lab/{folder}"));
        std::os::unix::fs::symlink(target, lab.path().join(folder)).expect("a link to the guests");
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    // All that the script starts is in a PID namespace of its own and ends with it.
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--net", "sh", "-c"]);
    // What programs keep there, and what a script puts there, is this script's own.
    command.arg(
        "set -e; mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /var/cache; for folder in etc opt; do
            mkdir -p /run/.lab/$folder/upper /run/.lab/$folder/work
            mount -t overlay overlay -o lowerdir=/$folder,upperdir=/run/.lab/$folder/upper,workdir=/run/.lab/$folder/work /$folder
        done; exec timeout -k 5 \"$@\"",
    );
    command.args(["sh", &limit.as_secs().to_string(), "sh", "-c", script]);
    command.env("LAB", lab.path()).env("IP", "ip").env("PATH", path).stdin(Stdio::null());
    let started = Instant::now();
    let output = command.output().expect("unshare starts");
    assert!(started.elapsed() < limit + GRACE + GRACE, "a script outlived its limit");
    let text = [output.stdout, output.stderr].concat();
    let output_text = String::from_utf8_lossy(&text).into_owned();
    Finished { code: output.status.code().unwrap_or(-1), output: output_text, console: String::new() }
}

/// A file of the image that `tests/setup lab` builds.
fn image(name: &str) -> PathBuf {
    cache_file(&Path::new("lab").join(name).to_string_lossy())
}
