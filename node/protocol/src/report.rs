//! The stream of launchers: one JSON object a line.
//!
//! Flow: a client asks for `GET /v1/launchers?watch=true`; it gets a [`Line::Report`] for each launcher pod of the node, then
//! [`Line::Synced`], then a report for each change. A client that is cut off asks again and starts from a full set.
//! Guarantees: the pod of a report is the folder that the socket lies in, never what the launcher says; a line has at most
//! [`MAX_LINE_BYTES`]. The two ends may be of two releases: readers ignore fields that they do not know.

use protocol::control::Status;
use protocol::outcome::Outcome;
use serde::{Deserialize, Serialize};

use crate::PodUid;

/// The longest line of the stream, without its end: twice what an agent takes of a launcher.
pub const MAX_LINE_BYTES: usize = 128 << 10;

/// A launcher as its node's agent sees it.
///
/// | `status` | `outcome` | `problem` | meaning |
/// |---|---|---|---|
/// | yes | no | no | the machine runs, or is about to |
/// | maybe | yes | no | the machine has ended; the status is the last one |
/// | maybe | no | yes | the launcher does not answer as it should; the status is the last one |
/// | no | no | no | the pod has no launcher any more: forget it |
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LauncherReport {
    /// The pod: kubelet's folder that the control socket lies in.
    pub pod_uid: PodUid,
    /// The agent's node.
    pub node_name: String,
    /// What the launcher last answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// How the machine ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why nothing newer is known: no launcher listens, or the agent refuses what it found. For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl LauncherReport {
    /// A report that says nothing but that the agent knows no launcher in this pod.
    #[must_use]
    pub fn new(pod_uid: PodUid, node_name: &str) -> Self {
        Self { pod_uid, node_name: node_name.to_owned(), status: None, outcome: None, problem: None }
    }

    /// Whether the pod has no launcher any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.status.is_none() && self.outcome.is_none() && self.problem.is_none()
    }
}

/// A line of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// A launcher, new or changed.
    Report(Box<LauncherReport>),
    /// Every launcher that the agent knew when the client connected was reported. Sent once.
    Synced {
        /// Always true.
        synced: bool,
    },
}

/// A line that a client cannot use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// Longer than any agent sends.
    #[error("a line of {bytes} bytes, expected at most {MAX_LINE_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not JSON of this shape.
    #[error("not a line of the stream of launchers")]
    Shape(#[from] serde_json::Error),
}

impl Line {
    /// Reads a line, with or without its end.
    ///
    /// # Errors
    /// When it is too long or has another shape.
    pub fn parse(line: &[u8]) -> Result<Self, LineError> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if line.len() > MAX_LINE_BYTES {
            return Err(LineError::TooLong { bytes: line.len() });
        }
        Ok(serde_json::from_slice(line)?)
    }

    /// The line as it is sent, with its end.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Nothing in these types refuses to be JSON: keys are text and numbers are finite.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use protocol::control::State;
    use protocol::outcome::Verdict;

    use super::*;

    fn report() -> LauncherReport {
        LauncherReport::new("5d1f1c2e-1e0b-4b7c-9d1a-0c5b6a7d8e9f".parse().unwrap(), "node1")
    }

    // spec: NODE-1
    #[test]
    fn the_stream_has_the_documented_text_and_reads_back() {
        let outcome = Outcome { outcome: Verdict::Crashed, reason: "panic".to_owned(), requested: false };
        let reports = [
            LauncherReport { status: Some(Status::new(State::Running)), ..report() },
            LauncherReport { outcome: Some(outcome), ..report() },
            LauncherReport { problem: Some("control.sock: it is a link".to_owned()), ..report() },
            report(),
        ];
        let mut lines: Vec<_> = reports.into_iter().map(|report| Line::Report(Box::new(report))).collect();
        lines.insert(1, Line::Synced { synced: true });
        let text: Vec<u8> = lines.iter().flat_map(Line::to_bytes).collect();
        assert_eq!(String::from_utf8(text.clone()).unwrap(), include_str!("../tests/golden/launchers.txt"));
        let read: Vec<_> = text.split_inclusive(|byte| *byte == b'\n').map(|line| Line::parse(line).unwrap()).collect();
        assert_eq!(read, lines);
    }

    #[test]
    fn only_a_report_without_anything_says_that_the_launcher_is_gone() {
        assert!(report().is_gone());
        assert!(!LauncherReport { status: Some(Status::new(State::Starting)), ..report() }.is_gone());
        assert!(!LauncherReport { problem: Some("no launcher listens".to_owned()), ..report() }.is_gone());
    }

    // spec: NODE-1
    #[test]
    fn a_line_that_is_too_long_or_names_no_pod_is_refused() {
        let long = [b"{\"synced\":true,\"x\":\"", "a".repeat(MAX_LINE_BYTES).as_bytes(), b"\"}\n"].concat();
        assert!(Line::parse(&long).unwrap_err().to_string().contains("expected at most 131072"));
        assert!(Line::parse(br#"{"podUid":"../x","nodeName":"n"}"#).is_err());
        let later = br#"{"podUid":"5d1f1c2e-1e0b-4b7c-9d1a-0c5b6a7d8e9f","nodeName":"node1","later":1}"#;
        assert_eq!(Line::parse(later).unwrap(), Line::Report(Box::new(report())));
    }
}
