//! How a launcher ended, by its exit status and `outcome.json`.

use std::path::Path;
use std::process::ExitStatus;

use protocol::outcome::Outcome;

use super::control::passed_on;
use super::machine::LauncherExit;
use crate::files;
use api::run_strategy::RunOutcome;

/// What a launcher's exit status and what it left in `outcome.json` mean.
pub(super) fn launcher_exit(status: ExitStatus, outcome_file: &Path) -> LauncherExit {
    let file: Option<Outcome> = files::read_json(outcome_file).ok();
    let (code, requested) = (status.code(), file.as_ref().is_some_and(|file| file.requested));
    let reason = match file {
        Some(file) => passed_on(&file.reason),
        None => format!("the launcher ended with {status} and left no word"),
    };
    let outcome = match code {
        Some(0) if requested => RunOutcome::Stopped,
        Some(0) => RunOutcome::PoweredOff,
        _ => RunOutcome::Failed,
    };
    // 1 failed, 3 invalid, 6 host lacks something, 7 guest failed: the launcher's codes are ours.
    let exit_code = code.and_then(|code| u8::try_from(code).ok()).filter(|code| matches!(code, 0 | 3 | 6 | 7));
    LauncherExit { outcome, reason, exit_code: exit_code.unwrap_or(1) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn end(raw_status: i32, outcome: Option<&str>) -> LauncherExit {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("outcome.json");
        if let Some(outcome) = outcome {
            fs::write(&file, outcome).unwrap();
        }
        launcher_exit(ExitStatus::from_raw(raw_status), &file)
    }

    #[test]
    fn a_guest_that_goes_of_itself_is_not_one_that_was_stopped() {
        let told = |requested| format!(r#"{{"outcome":"poweredOff","reason":"off","requested":{requested}}}"#);
        assert_eq!(end(0, Some(&told(false))).outcome, RunOutcome::PoweredOff);
        assert_eq!(end(0, Some(&told(true))).outcome, RunOutcome::Stopped);
    }

    #[test]
    fn failures_keep_their_exit_code() {
        let crashed = end(7 << 8, Some(r#"{"outcome":"crashed","reason":"panic\u0007 at 0","requested":false}"#));
        assert_eq!((crashed.outcome, crashed.exit_code), (RunOutcome::Failed, 7));
        assert_eq!(crashed.reason, "panic at 0");
        assert_eq!(end(99 << 8, None).exit_code, 1);
    }

    #[test]
    fn a_launcher_that_was_killed_has_failed() {
        let killed = end(9, None);
        assert_eq!((killed.outcome, killed.exit_code), (RunOutcome::Failed, 1));
        assert_eq!(killed.reason, "the launcher ended with signal: 9 (SIGKILL) and left no word");
    }
}
