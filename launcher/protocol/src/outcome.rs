//! How a launcher ends: what it leaves in `outcome.json`, and its exit code.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Name of the file in the VM's folder.
pub const OUTCOME_FILE: &str = "outcome.json";

/// What became of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// In one word.
    pub outcome: Verdict,
    /// In a sentence.
    pub reason: String,
    /// Whether somebody had asked the launcher to end it.
    #[serde(default)]
    pub requested: bool,
}

/// What became of the machine, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// The guest switched itself off.
    PoweredOff,
    /// The guest's kernel gave up.
    Crashed,
    /// The watchdog ended it.
    Watchdog,
    /// It was ended by force.
    Killed,
    /// It could not be run, or not any further.
    Failed,
}

impl Outcome {
    /// A launcher that could not run the machine.
    #[must_use]
    pub fn failed(reason: String) -> Self {
        Self { outcome: Verdict::Failed, reason, requested: false }
    }

    /// 0 powered off or stopped on request, 7 the guest failed, 1 the launcher failed.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.outcome {
            Verdict::PoweredOff => 0,
            Verdict::Killed if self.requested => 0,
            Verdict::Crashed | Verdict::Watchdog => 7,
            Verdict::Killed | Verdict::Failed => 1,
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

    #[test]
    fn a_kill_is_a_success_only_when_it_was_asked_for() {
        let code = |outcome, requested| Outcome { outcome, reason: String::new(), requested }.exit_code();
        assert_eq!((code(Verdict::Killed, true), code(Verdict::Killed, false)), (0, 1));
        assert_eq!((code(Verdict::Crashed, true), code(Verdict::Watchdog, false)), (7, 7));
    }
}
