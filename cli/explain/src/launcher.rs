//! What a VM's launcher says of itself. It is another user's process: what it says is bounded, and not believed to be complete.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use terms::MacAddr;

use protocol::control::{Verb, ask};

const PATIENCE: Duration = Duration::from_secs(2);

/// The launcher's status, as much of it as is of interest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Launcher {
    /// `running`, `paused`, …
    pub(crate) state: String,
    pub(crate) nics: Vec<LauncherNic>,
}

/// One NIC as the launcher serves it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LauncherNic {
    pub(crate) name: String,
    pub(crate) mac: MacAddr,
    /// Whether the manifest keeps the guest's cable out.
    #[serde(default)]
    pub(crate) link_down: bool,
    /// `None` on a network without addresses.
    #[serde(default)]
    pub(crate) service: Option<Service>,
    /// What of its network the guest is not told, in words.
    #[serde(default)]
    pub(crate) not_told: Vec<String>,
}

/// What it answers there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Service {
    pub(crate) ipv4: Option<Lease>,
    pub(crate) ipv6: Option<Lease>,
    pub(crate) router_solicitations: u64,
    pub(crate) router_advertisements: u64,
    pub(crate) strangers_ignored: u64,
    /// Who sends DHCP messages.
    pub(crate) clients: Vec<MacAddr>,
}

/// One family's lease.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Lease {
    pub(crate) address: IpAddr,
    #[serde(default)]
    pub(crate) asked: u64,
    #[serde(default)]
    pub(crate) answered: u64,
    #[serde(default)]
    pub(crate) leased: bool,
    #[serde(default)]
    pub(crate) grants: u64,
}

impl Launcher {
    /// Asks at its control socket.
    pub(super) fn ask(socket: &Path) -> io::Result<Self> {
        Self::understand(ask(socket, Verb::Status, PATIENCE)?)
    }

    fn understand(answer: Value) -> io::Result<Self> {
        #[derive(Deserialize)]
        struct Answer {
            ok: Launcher,
        }
        let answer: Answer = serde_json::from_value(answer)?;
        Ok(answer.ok)
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
        let launcher = Launcher::understand(serde_json::from_str(answer).unwrap()).unwrap();
        let service = launcher.nics[0].service.as_ref().unwrap();
        let lease = service.ipv4.as_ref().unwrap();
        assert_eq!((lease.asked, lease.grants, lease.leased), (0, 2, true));
        assert_eq!((launcher.nics[1].service.as_ref(), service.ipv6.as_ref()), (None, None));
        assert!(Launcher::understand(json!({"error": "no"})).is_err());
    }
}
