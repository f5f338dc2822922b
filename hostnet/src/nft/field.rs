//! What a rule can look at: parts of packets and what the kernel knows of them.

use serde::{Deserialize, Serialize};

/// Something that a rule loads and compares, uses as a key, or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Field {
    /// Name of the device it came in by.
    Iifname,
    /// Name of the device it leaves by.
    Oifname,
    /// Group of the device it came in by.
    Iifgroup,
    /// Transport protocol (IPPROTO_*), 8 bits; for IPv6 that behind the extension headers.
    L4proto,
    /// IP family, in inet tables.
    Nfproto,
    /// Ethertype, in bridge and netdev tables.
    Protocol,
    /// The packet's mark; can be written.
    Mark,
    /// Unicast to us, broadcast, multicast (PACKET_* of `linux/if_packet.h`).
    Pkttype,
    /// Source Ethernet address; can be written.
    EtherSaddr,
    /// Destination Ethernet address; can be written.
    EtherDaddr,
    /// Ethertype in the frame itself.
    EtherType,
    /// IPv4 source; can be written.
    IpSaddr,
    /// IPv4 destination; can be written.
    IpDaddr,
    /// IPv6 source; can be written.
    Ip6Saddr,
    /// IPv6 destination; can be written.
    Ip6Daddr,
    /// TCP source port, 16 bits; a test for TCP is put before it.
    TcpSport,
    /// TCP destination port, 16 bits; a test for TCP is put before it.
    TcpDport,
    /// TCP flags (RFC 9293 §3.1), 8 bits; a test for TCP is put before it.
    TcpFlags,
    /// UDP source port, 16 bits; a test for UDP is put before it.
    UdpSport,
    /// UDP destination port, 16 bits; a test for UDP is put before it.
    UdpDport,
    /// Source port of whatever transport the rule has established.
    ThSport,
    /// Destination port of whatever transport the rule has established.
    ThDport,
    /// ICMP type (RFC 792), 8 bits; a test for ICMP is put before it.
    IcmpType,
    /// ICMPv6 type (RFC 4443 §2.1), 8 bits; a test for ICMPv6 is put before it.
    Icmpv6Type,
    /// Target address of a neighbour solicitation or advertisement (RFC 4861 §4.3); test the ICMPv6 type first.
    NdTarget,
    /// ARP operation (RFC 826): 1 request, 2 reply; 16 bits.
    ArpOperation,
    /// Ethernet address of the ARP sender.
    ArpSenderEther,
    /// IPv4 address of the ARP sender.
    ArpSenderIp,
    /// IPv4 address that the ARP packet asks for or answers to.
    ArpTargetIp,
    /// State of the connection; test with [`super::Test::AnyBit`].
    CtState,
    /// Status bits of the connection (IPS_* of `linux/netfilter/nf_conntrack_common.h`).
    CtStatus,
    /// The connection's mark; can be written.
    CtMark,
    /// Whether the packet goes the connection's original way.
    CtDirection,
    /// The IPv4 destination that the packet had before translation.
    CtOriginalIpDaddr,
    /// The IPv6 destination that the packet had before translation.
    CtOriginalIp6Daddr,
    /// What the routing table says of an address.
    Fib {
        /// Which address is looked up.
        address: Direction,
        /// What is returned of the route found.
        result: FibResult,
    },
    /// Part of a packet by its place, where it has no name here.
    Payload {
        /// Which header it is in (NFT_PAYLOAD_* of `linux/netfilter/nf_tables.h`).
        base: u32,
        /// Bytes from the beginning of the header.
        offset: u32,
        /// Length in bytes; at most 16 can be compared.
        bytes: u32,
    },
    /// What the kernel knows of a packet, where it has no name here.
    Meta {
        /// Which, by number: NFT_META_* of `linux/netfilter/nf_tables.h`.
        key: u32,
    },
    /// What the kernel knows of a connection, where it has no name here.
    Conntrack {
        /// Which, by number: NFT_CT_* of `linux/netfilter/nf_tables.h`.
        key: u32,
    },
    /// A random number below `modulus`.
    Random {
        /// How many numbers there are; not zero.
        modulus: u32,
    },
    /// A number below `modulus`, one higher for each packet.
    RoundRobin {
        /// How many numbers there are; not zero.
        modulus: u32,
    },
}

/// One of a packet's two addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// The address that the packet came from.
    Source,
    /// The address that the packet goes to.
    Destination,
}

/// What a look-up in the routing table yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FibResult {
    /// The address's kind as a number (RTN_*): 1 unicast, 2 local, 3 broadcast, 5 multicast.
    AddressKind,
    /// The index of the way out; 0 if there is none.
    Oif,
}

/// The version in the first four bits of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum IpVersion {
    /// IPv4 (RFC 791).
    V4,
    /// IPv6 (RFC 8200).
    V6,
}

impl IpVersion {
    /// The version of an address.
    #[must_use]
    pub fn of(address: std::net::IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}
