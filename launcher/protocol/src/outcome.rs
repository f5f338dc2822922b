//! How a launcher ends: what it leaves in `outcome.json`, and its exit code.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Name of the file in the VM's folder.
pub const OUTCOME_FILE: &str = "outcome.json";

/// What kubelet keeps of a container's termination message.
pub const TERMINATION_MESSAGE_BYTES: usize = 4096;

/// How the machine ended: the content of `outcome.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// How it ended, for programs.
    pub outcome: Verdict,
    /// The reason, as a message for users.
    pub reason: String,
    /// Whether the launcher was asked to end it, by a request or by SIGTERM.
    #[serde(default)]
    pub requested: bool,
}

/// How the machine ended, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// The guest switched itself off.
    PoweredOff,
    /// The guest's kernel gave up.
    Crashed,
    /// The guest did not feed its watchdog, which ended the machine.
    Watchdog,
    /// It was ended by force.
    Killed,
    /// It could not be run, or not any further.
    Failed,
    /// It was not started: its network namespace is not wired, or for another request. A new pod may succeed.
    NotWired,
}

impl Outcome {
    /// A launcher that could not run the machine.
    #[must_use]
    pub fn failed(reason: String) -> Self {
        Self { outcome: Verdict::Failed, reason, requested: false }
    }

    /// A launcher that found its network not wired as the launch file demands.
    #[must_use]
    pub fn not_wired(reason: String) -> Self {
        Self { outcome: Verdict::NotWired, reason, requested: false }
    }

    /// 0 powered off or stopped on request, 7 the guest failed, 8 the network is not wired, 1 the launcher failed.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.outcome {
            Verdict::PoweredOff => 0,
            Verdict::Killed if self.requested => 0,
            Verdict::Crashed | Verdict::Watchdog => 7,
            Verdict::NotWired => 8,
            Verdict::Killed | Verdict::Failed => 1,
        }
    }

    /// The outcome as a container's termination message: the same JSON, with a reason that is cut so that it fits.
    ///
    /// # Errors
    /// None in practice: keys are text and there are no numbers.
    pub fn to_termination_message(&self) -> io::Result<Vec<u8>> {
        const CUT: &str = "…";
        let mut message = self.clone();
        loop {
            let text = serde_json::to_vec(&message)?;
            if text.len() <= TERMINATION_MESSAGE_BYTES || message.reason.is_empty() {
                return Ok(text);
            }
            // JSON escapes some bytes, so a share is kept until it fits; at least a byte goes each time.
            let share = message.reason.len() * TERMINATION_MESSAGE_BYTES / text.len();
            let kept = share.min(message.reason.len().saturating_sub(CUT.len() + 1));
            message.reason.truncate(message.reason.floor_char_boundary(kept));
            if kept > 0 {
                message.reason.push_str(CUT);
            }
        }
    }

    /// Takes away what an earlier launcher left: no file means that the machine runs, or that the launcher was killed.
    ///
    /// # Errors
    /// The system's.
    pub fn clear(folder: &Path) -> io::Result<()> {
        match fs::remove_file(folder.join(OUTCOME_FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Leaves `outcome.json` in the VM's folder, whole or not at all.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let (fresh, file) = (folder.join(format!("{OUTCOME_FILE}.new")), folder.join(OUTCOME_FILE));
        fs::write(&fresh, serde_json::to_vec(self)?)?;
        fs::rename(fresh, file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: LAUNCH-2
    #[test]
    fn the_file_reads_back_and_has_the_documented_words() {
        let folder = tempfile::tempdir().unwrap();
        let reason = "the guest powered itself off".to_owned();
        let outcome = Outcome { outcome: Verdict::PoweredOff, reason, requested: false };
        outcome.write(folder.path()).unwrap();
        let text = fs::read_to_string(folder.path().join(OUTCOME_FILE)).unwrap();
        assert_eq!(text, r#"{"outcome":"poweredOff","reason":"the guest powered itself off","requested":false}"#);
        assert_eq!(serde_json::from_str::<Outcome>(&text).unwrap(), outcome);
    }

    // spec: LAUNCH-8
    #[test]
    fn a_termination_message_fits_into_what_kubelet_keeps_and_reads_back() {
        let outcome = Outcome::not_wired("k6t-eth0 carries no commit mark".to_owned());
        assert_eq!(outcome.to_termination_message().unwrap(), serde_json::to_vec(&outcome).unwrap());
        for reason in ["é".repeat(5000), "\u{1}".repeat(5000), "a\"".repeat(5000), "x".repeat(4060)] {
            let message = Outcome::failed(reason.clone()).to_termination_message().unwrap();
            assert!((2000..=TERMINATION_MESSAGE_BYTES).contains(&message.len()), "{}", message.len());
            let read: Outcome = serde_json::from_slice(&message).unwrap();
            assert!(reason.starts_with(read.reason.strip_suffix('…').unwrap()), "{}", read.reason);
        }
    }

    // spec: LAUNCH-8
    #[test]
    fn a_kill_is_a_success_only_when_it_was_asked_for() {
        let code = |outcome, requested| Outcome { outcome, reason: String::new(), requested }.exit_code();
        assert_eq!((code(Verdict::Killed, true), code(Verdict::Killed, false)), (0, 1));
        assert_eq!((code(Verdict::Crashed, true), code(Verdict::Watchdog, false)), (7, 7));
        assert_eq!((code(Verdict::NotWired, false), code(Verdict::Failed, false)), (8, 1));
    }
}
