//! Families, and the names that tables have in them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::uapi;

/// Which packets a table sees (NFPROTO_* of `linux/netfilter.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Family {
    /// IPv4 and IPv6 packets of the IP stack.
    Inet,
    /// IPv4 packets of the IP stack.
    Ip,
    /// IPv6 packets of the IP stack.
    Ip6,
    /// ARP packets of the IP stack.
    Arp,
    /// Frames that cross a kernel bridge.
    Bridge,
    /// What enters or leaves one device.
    Netdev,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Arp => "arp",
            Self::Bridge => "bridge",
            Self::Netdev => "netdev",
        })
    }
}

/// Family and name of a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TableId {
    /// Tables of different families may have the same name.
    pub family: Family,
    /// At most 255 bytes, unique in the family.
    pub name: String,
}

impl TableId {
    /// The table of that family and name.
    #[must_use]
    pub fn new(family: Family, name: &str) -> Self {
        Self { family, name: name.to_owned() }
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

impl Family {
    /// NFPROTO_* of `linux/netfilter.h`.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Inet => uapi::NFPROTO_INET,
            Self::Ip => 2,
            Self::Arp => 3,
            Self::Netdev => uapi::NFPROTO_NETDEV,
            Self::Bridge => 7,
            Self::Ip6 => 10,
        }
    }

    /// The family of such a number.
    pub(crate) fn of(number: u8) -> Option<Self> {
        let all = [Self::Inet, Self::Ip, Self::Arp, Self::Netdev, Self::Bridge, Self::Ip6];
        all.into_iter().find(|family| family.number() == number)
    }
}
