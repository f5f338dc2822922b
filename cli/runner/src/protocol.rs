//! What commands and a VM's supervisor say to each other: one JSON object a line, over `supervisor.sock`.
//!
//! The command that starts a supervisor talks over a socket that both inherited; everything else is the same there. Both
//! ends are root's and of one version, or of two that meet across an update: unknown fields are passed over.

use serde::{Deserialize, Serialize};

use super::record::Phase;
use api::run_strategy::FinalPhase;

/// A request to a supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Request {
    /// End the guest and leave it ended. Answered when it has.
    Stop {
        /// Time it has to power off; the manifest's when absent, none when 0.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grace_seconds: Option<u64>,
        /// Whether to forget the VM then.
        #[serde(default)]
        remove: bool,
    },
    /// End the guest and start it again. Answered when it runs.
    Restart {
        /// As for `stop`: seconds, the manifest's when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grace_seconds: Option<u64>,
    },
    /// Keep the VM known after it has ended: the command that started it goes.
    Keep,
    /// Answered at once by [`Report::Alive`]: the supervisor can serve requests.
    Ping,
}

/// What a supervisor says: answers, and to the command that started it also what happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Report {
    /// A step of starting or ending the VM is done.
    Progress {
        /// What, in a few words.
        text: String,
    },
    /// Something that stays so and that the user may want to change.
    Note {
        /// The note as a message for users.
        text: String,
    },
    /// The guest runs, for the first time or again.
    Running,
    /// Its processors are halted: on request, or for the reason.
    Paused {
        /// Why they are halted, if it was not a request.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A run of the guest has ended and another one will follow.
    Again {
        /// Why the run ended, in a sentence.
        reason: String,
        /// Seconds until the next start.
        after_seconds: u64,
    },
    /// It is over; nothing of the VM is left on the host.
    Ended {
        /// The phase that the VM stays in.
        end: FinalPhase,
        /// Why, when that needs saying.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// It could not be started; nothing of it is left.
    Failed {
        /// The exit code that goes with it.
        exit_code: u8,
        /// Why it could not be started, in one line.
        message: String,
    },
    /// Answers [`Request::Ping`]: the supervisor serves requests.
    Alive,
    /// A request was carried out.
    Done {
        /// Where the VM is now.
        phase: Phase,
    },
    /// A request could not be carried out.
    Refused {
        /// Why it could not be carried out, in one line.
        message: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_reports_have_the_shape_that_other_versions_read() {
        let stop = Request::Stop { grace_seconds: Some(5), remove: false };
        assert_eq!(serde_json::to_string(&stop).unwrap(), r#"{"verb":"stop","graceSeconds":5,"remove":false}"#);
        let bare: Request = serde_json::from_str(r#"{"verb":"stop","later":1}"#).unwrap();
        assert_eq!(bare, Request::Stop { grace_seconds: None, remove: false });
        let failed = Report::Failed { exit_code: 6, message: "no tun".to_owned() };
        assert_eq!(serde_json::to_string(&failed).unwrap(), r#"{"event":"failed","exitCode":6,"message":"no tun"}"#);
    }
}
