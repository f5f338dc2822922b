//! A process by its number *and* its start time, so that a number used again is never mistaken for it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use wiring::Owner;

/// User and group of VM processes in pods, and of VMs that an earlier release has started.
pub const POD_OWNER: Owner = Owner { uid: 107, gid: 107 };

/// A process that was alive when it was noted down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Process id, which the kernel may give to another one later.
    pub pid: i32,
    /// When it started, in the kernel's clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start_ticks: u64,
}

impl Process {
    /// The process that has this number now; `None` when there is none.
    #[must_use]
    pub fn noted(pid: i32) -> Option<Self> {
        start_ticks(pid).map(|start_ticks| Self { pid, start_ticks })
    }

    /// Whether this very process still runs; a zombie does not.
    #[must_use]
    pub fn is_alive(self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// Sends a signal if the process is still the one that was noted.
    ///
    /// Between the look and the signal the kernel would have to end the process and hand its number out again, which
    /// takes a whole turn of the process numbers.
    ///
    /// # Errors
    /// When the kernel refuses for another reason than that the process is gone.
    pub fn signal(self, signal: Signal) -> Result<(), Errno> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Err(Errno::ESRCH) => Ok(()),
            result => result,
        }
    }

    /// Waits for the end of a process that need not be a child of ours. Returns whether it came in time.
    #[must_use]
    pub fn ends_within(self, patience: Duration) -> bool {
        const STEP: Duration = Duration::from_millis(5);
        let mut waited = Duration::ZERO;
        while self.is_alive() {
            if waited >= patience {
                return false;
            }
            std::thread::sleep(STEP);
            waited += STEP;
        }
        true
    }
}

/// Processes of a VM: those of its user. A user that VMs share is told apart by the network namespace at `netns`, which is
/// the VM's own.
#[must_use]
pub(crate) fn of_vm(owner: Owner, netns: &Path) -> Vec<Process> {
    let wanted = namespace(netns);
    let is_in_it = |pid: i32| wanted.is_some() && namespace(Path::new(&format!("/proc/{pid}/ns/net"))) == wanted;
    let is_its = |pid: &i32| match users_of(*pid) {
        Some(users) if owner == POD_OWNER => users.contains(&owner.uid) && is_in_it(*pid),
        Some(users) => users.contains(&owner.uid),
        None => false,
    };
    pids().filter(is_its).filter_map(Process::noted).collect()
}

fn namespace(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).ok().map(|namespace| (namespace.dev(), namespace.ino()))
}

/// All users that processes run as now.
pub(crate) fn users() -> BTreeSet<u32> {
    pids().filter_map(users_of).flatten().collect()
}

fn pids() -> impl Iterator<Item = i32> {
    let listing = fs::read_dir("/proc").into_iter().flatten().flatten();
    listing.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Real, effective, saved and file system user of a process. Not the owner of `/proc/PID`: that is root for a process that
/// has made itself undumpable.
fn users_of(pid: i32) -> Option<[u32; 4]> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers = text.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let numbers: Vec<_> = numbers.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect();
    numbers.try_into().ok()
}

/// Whether anybody of the session that a process began still has files open: a process whose first thread has ended may
/// have others, and one that is killed closes its files in its own time.
pub(crate) fn is_session_left(first: i32) -> bool {
    pids().filter_map(stat).any(|stat| stat.session == first && !stat.is_over())
}

/// What `/proc/PID/stat` says (proc(5), fields 3, 6, 20 and 22).
struct Stat {
    state: char,
    session: i32,
    threads: u32,
    start_ticks: u64,
}

impl Stat {
    fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }

    fn is_over(&self) -> bool {
        self.is_dead() && self.threads <= 1
    }
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command in field 2 may hold anything, parentheses and spaces included: count from its last parenthesis.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<_> = rest.split_ascii_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        session: fields.get(3)?.parse().ok()?,
        threads: fields.get(17)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

/// Start time of a process that is neither a zombie nor dead.
fn start_ticks(pid: i32) -> Option<u64> {
    stat(pid).filter(|stat| !stat.is_dead()).map(|stat| stat.start_ticks)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_alive_until_it_ends() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let noted = Process::noted(child.id().cast_signed()).unwrap();
        assert!(noted.is_alive());
        noted.signal(Signal::SIGKILL).unwrap();
        assert!(noted.ends_within(Duration::from_secs(5)), "a zombie has ended");
        child.wait().unwrap();
        assert!(!noted.is_alive());
        noted.signal(Signal::SIGKILL).unwrap();
    }

    #[test]
    fn the_same_number_with_another_start_is_another_process() {
        let own = Process::noted(std::process::id().cast_signed()).unwrap();
        let other = Process { start_ticks: own.start_ticks + 1, ..own };
        assert!(own.is_alive() && !other.is_alive());
        // Were it taken for us, the test would end here.
        other.signal(Signal::SIGKILL).unwrap();
    }

    // spec: ISO-2
    #[test]
    fn a_vms_processes_are_found_by_their_user_also_when_they_hide_from_it() {
        let me = nix::unistd::geteuid().as_raw();
        let owner = Owner { uid: me, gid: me };
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id().cast_signed();
        let is_found = |owner| of_vm(owner, Path::new("/nowhere")).iter().any(|process| process.pid == pid);
        assert!(is_found(owner) && users().contains(&me));
        assert!(!is_found(Owner { uid: me + 1, gid: me }));
        assert!(!is_found(POD_OWNER), "a user that VMs share is told apart by namespace");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_found(owner));
        // One that is undumpable has its folder in /proc taken from it, and is what it was.
        nix::sys::prctl::set_dumpable(false).unwrap();
        let found = users_of(std::process::id().cast_signed());
        nix::sys::prctl::set_dumpable(true).unwrap();
        assert_eq!(found, Some([me; 4]));
    }

    // spec: RUN-2
    #[test]
    fn a_session_is_left_until_the_last_of_it_has_ended() {
        let mut first = Command::new("sh");
        first.args(["-c", "sleep 60 >/dev/null 2>&1 & echo $!"]).stdout(std::process::Stdio::piped());
        crate::sys::spawn::detach(&mut first, Vec::new());
        let first = first.spawn().unwrap();
        let session = first.id().cast_signed();
        let said = String::from_utf8(first.wait_with_output().unwrap().stdout).unwrap();
        let other = Process::noted(said.trim().parse().unwrap()).unwrap();
        assert!(is_session_left(session));
        other.signal(Signal::SIGKILL).unwrap();
        assert!(other.ends_within(Duration::from_secs(5)));
        assert!(!is_session_left(session));
    }
}
