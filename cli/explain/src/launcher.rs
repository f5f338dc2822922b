//! What a VM's launcher says of itself. It is another user's process: what it says is bounded, and not believed to be complete.

use std::io;
use std::path::Path;
use std::time::Duration;

use protocol::client;
use protocol::control::{Answer, Report, Verb};
pub(crate) use protocol::control::{LeaseStatus, NicStatus, Status};

use crate::record::Launcher;

const PATIENCE: Duration = Duration::from_secs(2);

/// A launcher's status; why there is none, as a text.
pub(super) fn status(launcher: &Launcher) -> Result<Status, String> {
    match launcher {
        Launcher::Socket(socket) => ask(socket).map_err(|error| error.to_string()),
        Launcher::Asked(asked) => asked.clone().map(|status| *status),
    }
}

fn ask(socket: &Path) -> io::Result<Status> {
    understand(client::ask(socket, Verb::Status, PATIENCE)?)
}

fn understand(answer: Answer) -> io::Result<Status> {
    match answer {
        Answer::Ok { ok: Report::Status(status), .. } => Ok(*status),
        Answer::Ok { .. } => Err(io::Error::other("its answer is no status")),
        Answer::Error { error, .. } => Err(io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_of_an_older_or_newer_launcher_is_understood() {
        let answer = r#"{"id":1,"ok":{"state":"running","later":1,"nics":[{"name":"default","tap":"k6t-eth0",
            "mac":"02:00:00:00:00:01","service":{"ipv4":{"address":"10.0.2.2","leased":true,"grants":2},"ipv6":null}},
            {"name":"plain","mac":"02:00:00:00:00:02","service":null}]}}"#;
        let launcher = understand(serde_json::from_str(answer).unwrap()).unwrap();
        let service = launcher.nics[0].service.as_ref().unwrap();
        let lease = service.ipv4.as_ref().unwrap();
        assert_eq!((lease.asked, lease.grants, lease.leased), (0, 2, true));
        assert_eq!((launcher.nics[1].service.as_ref(), service.ipv6.as_ref()), (None, None));
        let refused = understand(serde_json::from_value(json!({"error": "no"})).unwrap()).unwrap_err();
        assert_eq!(refused.to_string(), "no");
    }
}
