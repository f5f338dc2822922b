//! Neighbour entries: who answers for an address on a link.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use terms::{IfName, MacAddr};

/// An ARP or neighbour-discovery entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Neighbour {
    /// The link it is on.
    pub link: IfName,
    /// IP address of the neighbour (NDA_DST).
    pub address: IpAddr,
    /// Its Ethernet address, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// What the kernel knows of its reachability.
    pub state: NeighbourState,
    /// Whether it announced itself as a router (RFC 4861 §4.4).
    #[serde(default)]
    pub router: bool,
}

/// Reachability (NUD_* of `linux/neighbour.h`, RFC 4861 §7.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NeighbourState {
    /// A request is out; the Ethernet address is not known yet.
    Incomplete,
    /// Confirmed a short while ago.
    Reachable,
    /// Not confirmed lately; the next packet still uses the address.
    Stale,
    /// Used while stale: a probe follows unless it is confirmed first.
    Delay,
    /// A unicast probe is out.
    Probe,
    /// No answer came to the requests.
    Failed,
    /// The link needs no address resolution.
    Noarp,
    /// Set by an administrator; it does not expire.
    Permanent,
    /// No state: the entry is new or of a pseudo device.
    None,
}
