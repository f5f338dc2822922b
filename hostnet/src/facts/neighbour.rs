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
    /// NDA_DST.
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
    /// Being resolved.
    Incomplete,
    /// Confirmed a short while ago.
    Reachable,
    /// Not confirmed lately.
    Stale,
    /// About to be probed.
    Delay,
    /// Being probed.
    Probe,
    /// Gone.
    Failed,
    /// Needs no resolution.
    Noarp,
    /// Set by an administrator.
    Permanent,
    /// Nothing known.
    None,
}
