//! Values that fields are compared with and set to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use terms::{IfName, MacAddr, Protocol};

/// Connection state bits for [`super::Field::CtState`] (NF_CT_STATE_BIT of `linux/netfilter/nf_conntrack_common.h`).
pub const CT_INVALID: u64 = 1;
/// Part of a connection that has seen packets both ways.
pub const CT_ESTABLISHED: u64 = 1 << 1;
/// A new connection that belongs to another.
pub const CT_RELATED: u64 = 1 << 2;
/// The first packet of a connection.
pub const CT_NEW: u64 = 1 << 3;
/// A packet that a rule exempted from tracking (`notrack`).
pub const CT_UNTRACKED: u64 = 1 << 6;

/// A value. Which one a field takes, its width and its byte order are the field's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Value {
    /// A number: port, protocol, mark, type, state bits.
    Number(u64),
    /// An IPv4 or IPv6 address.
    Ip(IpAddr),
    /// A unicast Ethernet address.
    Mac(MacAddr),
    /// A group or broadcast Ethernet address, which [`MacAddr`] cannot hold.
    GroupMac([u8; 6]),
    /// A device's name, at most 15 bytes.
    Device(IfName),
    /// Bytes of a type that only other programs use, as in the packet or register; those of both ends where it is a range.
    Bytes(Vec<u8>),
}

impl From<IpAddr> for Value {
    fn from(value: IpAddr) -> Self {
        Self::Ip(value)
    }
}

impl From<Ipv4Addr> for Value {
    fn from(value: Ipv4Addr) -> Self {
        Self::Ip(value.into())
    }
}

impl From<Ipv6Addr> for Value {
    fn from(value: Ipv6Addr) -> Self {
        Self::Ip(value.into())
    }
}

impl From<MacAddr> for Value {
    fn from(value: MacAddr) -> Self {
        Self::Mac(value)
    }
}

impl From<&IfName> for Value {
    fn from(value: &IfName) -> Self {
        Self::Device(value.clone())
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Number(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Number(value.into())
    }
}

impl From<u16> for Value {
    fn from(value: u16) -> Self {
        Self::Number(value.into())
    }
}

impl From<u8> for Value {
    fn from(value: u8) -> Self {
        Self::Number(value.into())
    }
}

impl From<Protocol> for Value {
    fn from(value: Protocol) -> Self {
        Self::Number(match value {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        })
    }
}
