//! A process by its number *and* its start time, so that a number used again is never mistaken for it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process that was alive when it was noted down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Its number.
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

/// Processes of a user whose network namespace is the one at `netns`.
///
/// The namespace is a VM's own, so a process of the launcher's user inside it is that VM's launcher or a child of it.
#[must_use]
pub(crate) fn of_user_in_netns(uid: u32, netns: &Path) -> Vec<Process> {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(wanted) = fs::metadata(netns).map(|namespace| (namespace.dev(), namespace.ino())) else {
        return Vec::new();
    };
    let Ok(listing) = fs::read_dir("/proc") else { return Vec::new() };
    listing
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| fs::metadata(format!("/proc/{pid}")).is_ok_and(|process| process.uid() == uid))
        .filter(|pid| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|ns| (ns.dev(), ns.ino()) == wanted))
        .filter_map(Process::noted)
        .collect()
}

/// Start time of a process that is neither a zombie nor dead.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command in field 2 may hold anything, parentheses and spaces included: count from its last parenthesis.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
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
}
