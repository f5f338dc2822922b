//! What a rule consists of: tests and actions.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use terms::{IfName, IpNetwork};

use super::{Field, IpVersion, Value};

/// One step of a rule; a test that fails ends the rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields are named for what they hold")]
pub enum Statement {
    /// Goes on only if the fields pass the test. Several fields are a key, for tests against sets.
    Match {
        /// The fields, concatenated where there are several.
        fields: Vec<Field>,
        /// The condition on their values.
        test: Test,
    },
    /// Counts packets and bytes that get this far.
    Counter,
    /// A verdict; it ends the rule unless it is `continue`.
    Verdict(Verdict),
    /// Decides by a map; a key that is not in it goes on.
    VerdictMap {
        /// The key; empty where another program's rule computes it in a way that this program does not know.
        fields: Vec<Field>,
        /// Where it is looked up.
        map: VerdictMap,
    },
    /// Writes a field; those that can be written say so.
    Set { field: Field, value: Value },
    /// Source becomes the address of the way out.
    Masquerade,
    /// The destination address, port or both become others (`dnat`).
    Dnat {
        /// IP version of the packets and of the new address.
        version: IpVersion,
        to: NatTarget,
    },
    /// The source address, port or both become others (`snat`).
    Snat {
        /// IP version of the packets and of the new address.
        version: IpVersion,
        to: NatTarget,
    },
    /// The destination becomes this host (`redirect`).
    Redirect {
        /// The new port, if it changes.
        port: Option<u16>,
    },
    /// The frame leaves by another device (netdev tables).
    Forward { to: IfName },
    /// A copy of the frame leaves by another device (netdev tables).
    Duplicate { to: IfName },
    /// Dropped, and the sender is told.
    Reject(Reject),
    /// Exempts the packet from connection tracking.
    Notrack,
    /// Adds the fields to a dynamic set.
    UpdateSet(UpdateSet),
    /// Goes on only for packets within a rate, or only for those above it.
    Limit(Limit),
    /// An expression of a rule of another program, of a kind or form that this program does not write; it cannot be written.
    Foreign {
        /// The kernel's name for the expression (`nft_expr_type.name`).
        expression: String,
        /// The extension of xtables that a `match` or `target` calls.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        extension: Option<String>,
    },
}

/// What a field must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Test {
    /// Equal to it: `==` in nft.
    Is(Value),
    /// Not equal to it: `!=` in nft.
    IsNot(Value),
    /// The name of a device begins with this text (`"veth*"` in `nft`).
    NameStart(String),
    /// An IP address in the network.
    Within(IpNetwork),
    /// An IP address outside the network.
    NotWithin(IpNetwork),
    /// From the first to the second, both included.
    Range(Value, Value),
    /// Any of these bits is set.
    AnyBit(u64),
    /// None of these bits is set.
    NoBit(u64),
    /// The bits of `mask` have this value.
    Bits {
        /// Which bits are looked at.
        mask: u64,
        /// The value of those bits; 0 for none of them set.
        value: u64,
    },
    /// One of these values: a set without a name.
    OneOf(Vec<Value>),
    /// None of these values: a set without a name.
    NoneOf(Vec<Value>),
    /// In the set of that name in the same table.
    InSet(String),
    /// Not in the named set.
    NotInSet(String),
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It passes this hook's chain.
    Accept,
    /// The packet vanishes without an answer.
    Drop,
    /// Back to the chain that jumped here, or to the policy.
    Return,
    /// On with the next rule.
    Continue,
    /// To another chain, and back.
    Jump(String),
    /// To another chain, not back.
    Goto(String),
}

/// Where a verdict is looked up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum VerdictMap {
    /// In the map of that name in the same table.
    Named(String),
    /// In these pairs of key and verdict.
    Inline(Vec<(Vec<Value>, Verdict)>),
}

/// What an address is translated to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields are named for what they hold")]
pub enum NatTarget {
    /// The same address and port for every packet.
    Fixed {
        /// The new address, if it changes.
        address: Option<IpAddr>,
        /// The new port, if it changes.
        port: Option<u16>,
    },
    /// What the named map yields for a key: an address, or an address and a port.
    Map {
        fields: Vec<Field>,
        map: String,
        /// Whether it yields a port too.
        with_port: bool,
    },
}

/// How the sender is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reject {
    /// ICMP or ICMPv6 "port unreachable", by the packet's family.
    PortUnreachable,
    /// ICMP or ICMPv6 "administratively prohibited", by the packet's family.
    AdminProhibited,
    /// A TCP reset; only TCP may come here.
    TcpReset,
}

/// Adding to a dynamic set from a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateSet {
    /// A dynamic set of the same table.
    pub set: String,
    /// The fields that make up the key of the element.
    pub fields: Vec<Field>,
    /// Whether an element that is there already gets its full time again.
    pub refresh: bool,
    /// Seconds, if other than the set's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u32>,
}

/// A token bucket that all packets which reach the rule share (`limit` in `nft`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limit {
    /// Packets per second that fill the bucket.
    pub packets_per_second: u32,
    /// Packets that the bucket holds; not zero, for which the kernel writes a number of its own.
    pub burst_packets: u32,
    /// Whether the rule goes on above the rate instead of within it.
    pub over: bool,
}
