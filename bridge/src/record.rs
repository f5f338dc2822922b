//! The record of an attachment: what DEL and GC must know that the attachment's key does not tell.

use std::net::IpAddr;
use std::time::Duration;

use hostnet::{Locks, Records};
use serde::{Deserialize, Serialize};
use terms::{ContainerId, IfName, MacAddr};

use super::rules::Elements;

/// On tmpfs: it dies with the reboot that ends the attachment.
const FOLDER: &str = "/run/tapvisor/bridge";

/// How long a call waits for another one. Calls take milliseconds; runtimes wait for minutes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What is outside the pod's namespace. Another release may have written it: fields that are not known are ignored, because a
/// record that is not read counts as cut off, and what it is about would stay on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// CNI_CONTAINERID, for the IPAM plugin.
    pub(crate) container_id: ContainerId,
    /// CNI_IFNAME.
    pub(crate) if_name: IfName,
    /// The pod's Ethernet address, if it is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checked_mac: Option<MacAddr>,
    /// The link that the network's bridge reaches the outside by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) uplink: Option<IfName>,
    /// The link by which masqueraded packets come in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gateway_link: Option<IfName>,
    /// The addresses that are masqueraded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) masqueraded: Vec<IpAddr>,
}

impl Record {
    /// The attachment's elements in the tables.
    pub(crate) fn elements(&self, host_end: &IfName) -> Elements {
        let link = self.gateway_link.iter();
        Elements {
            owner: self.checked_mac.map(|mac| (host_end.clone(), mac)),
            masqueraded: link.flat_map(|link| self.masqueraded.iter().map(|ip| (link.clone(), *ip))).collect(),
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        // A struct of text and numbers always has a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// `None` for one that was cut off: its writer was killed before the first change.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// The records of this host.
pub(crate) fn records() -> Records {
    Records::new(FOLDER, Locks::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it was first written; it never changes.
    const EARLIER: &str = r#"{"containerId":"c1","ifName":"eth0","checkedMac":"02:00:00:00:00:07","gatewayLink":"cni0","masqueraded":["10.0.0.5","fd00::5"]}"#;

    // spec: OPS-8
    #[test]
    fn a_record_of_another_release_is_read() {
        let earlier = Record::from_bytes(EARLIER.as_bytes()).unwrap();
        assert_eq!((earlier.container_id.to_string(), earlier.masqueraded.len()), ("c1".to_owned(), 2));
        let now: serde_json::Value = serde_json::from_slice(&earlier.to_bytes()).unwrap();
        assert_eq!(now, serde_json::from_str::<serde_json::Value>(EARLIER).unwrap(), "the release before reads it");
        let later = EARLIER.replacen('{', r#"{"later":{"a":1},"#, 1);
        assert_eq!(Record::from_bytes(later.as_bytes()), Some(earlier));
    }

    #[test]
    fn a_record_says_what_is_in_the_tables_and_one_cut_off_nothing() {
        let record = Record {
            container_id: "c1".parse().unwrap(),
            if_name: "eth0".parse().unwrap(),
            checked_mac: Some("02:00:00:00:00:07".parse().unwrap()),
            uplink: Some("eth7".parse().unwrap()),
            gateway_link: Some("cni0".parse().unwrap()),
            masqueraded: vec!["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()],
        };
        let bytes = record.to_bytes();
        assert_eq!(Record::from_bytes(&bytes), Some(record.clone()));
        assert!((0..bytes.len()).all(|length| Record::from_bytes(&bytes[..length]).is_none()));
        let elements = record.elements(&"vethx".parse().unwrap());
        assert_eq!((elements.masqueraded.len(), elements.removals().len()), (2, 3));
    }
}
