//! Rules, and verbs to write them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use terms::{IfName, Protocol};

use super::{Field, IpVersion, Limit, NatTarget, Reject, Statement, Test, Value, Verdict};

/// A rule: statements carried out in order until a test fails.
///
/// What a field presupposes (the IP version before an address, the transport protocol before its port) is tested without
/// being written, as `nft` does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rule {
    /// A word for readers, at most 253 bytes; names the rule where a check reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Tests and actions, in the order in which the kernel executes them.
    pub statements: Vec<Statement>,
}

/// Statements that most rules have at most: room for them is made at once.
const USUAL_STATEMENTS: usize = 6;

impl Rule {
    /// An empty rule of that name.
    #[must_use]
    pub fn named(comment: impl Into<String>) -> Self {
        Self { comment: Some(comment.into()), statements: Vec::with_capacity(USUAL_STATEMENTS) }
    }

    /// The same with one more statement.
    #[must_use]
    pub fn with(mut self, statement: Statement) -> Self {
        self.statements.push(statement);
        self
    }

    /// Goes on only if the field passes the test.
    #[must_use]
    pub fn when(self, field: Field, test: Test) -> Self {
        self.with(Statement::Match { fields: vec![field], test })
    }

    /// Goes on only if the field has this value.
    #[must_use]
    pub fn is(self, field: Field, value: impl Into<Value>) -> Self {
        self.when(field, Test::Is(value.into()))
    }

    /// Goes on only if the field has not this value.
    #[must_use]
    pub fn is_not(self, field: Field, value: impl Into<Value>) -> Self {
        self.when(field, Test::IsNot(value.into()))
    }

    /// Goes on only if the fields together are in the named set.
    #[must_use]
    pub fn in_set(self, fields: impl IntoIterator<Item = Field>, set: &str) -> Self {
        self.with(Statement::Match { fields: fields.into_iter().collect(), test: Test::InSet(set.to_owned()) })
    }

    /// Goes on only if it came in by this device.
    #[must_use]
    pub fn iifname(self, device: &IfName) -> Self {
        self.is(Field::Iifname, device)
    }

    /// Goes on only if it leaves by this device.
    #[must_use]
    pub fn oifname(self, device: &IfName) -> Self {
        self.is(Field::Oifname, device)
    }

    /// Goes on only with this source.
    #[must_use]
    pub fn saddr(self, address: IpAddr) -> Self {
        self.is(if address.is_ipv4() { Field::IpSaddr } else { Field::Ip6Saddr }, address)
    }

    /// Goes on only with this destination.
    #[must_use]
    pub fn daddr(self, address: IpAddr) -> Self {
        self.is(if address.is_ipv4() { Field::IpDaddr } else { Field::Ip6Daddr }, address)
    }

    /// Goes on only with this protocol and destination port.
    #[must_use]
    pub fn dport(self, protocol: Protocol, port: u16) -> Self {
        match protocol {
            Protocol::Tcp => self.is(Field::TcpDport, port),
            Protocol::Udp => self.is(Field::UdpDport, port),
            Protocol::Sctp => self.is(Field::L4proto, protocol).is(Field::ThDport, port),
        }
    }

    /// Goes on only if the fields together are not in the named set.
    #[must_use]
    pub fn not_in_set(self, fields: impl IntoIterator<Item = Field>, set: &str) -> Self {
        self.with(Statement::Match { fields: fields.into_iter().collect(), test: Test::NotInSet(set.to_owned()) })
    }

    /// Goes on only for what exceeds a rate.
    #[must_use]
    pub fn above(self, packets_per_second: u32, burst_packets: u32) -> Self {
        self.with(Statement::Limit(Limit { packets_per_second, burst_packets, over: true }))
    }

    /// Counts what comes this far.
    #[must_use]
    pub fn counter(self) -> Self {
        self.with(Statement::Counter)
    }

    /// Ends with `accept`: later chains of the hook still see the packet.
    #[must_use]
    pub fn accept(self) -> Self {
        self.with(Statement::Verdict(Verdict::Accept))
    }

    /// Ends with `drop`: the packet vanishes without an answer.
    #[must_use]
    pub fn drop(self) -> Self {
        self.with(Statement::Verdict(Verdict::Drop))
    }

    /// Returns to where the chain was jumped to from.
    #[must_use]
    pub fn ret(self) -> Self {
        self.with(Statement::Verdict(Verdict::Return))
    }

    /// Jumps to a chain of the same table, and comes back.
    #[must_use]
    pub fn jump(self, chain: &str) -> Self {
        self.with(Statement::Verdict(Verdict::Jump(chain.to_owned())))
    }

    /// Goes to a chain for good.
    #[must_use]
    pub fn goto(self, chain: &str) -> Self {
        self.with(Statement::Verdict(Verdict::Goto(chain.to_owned())))
    }

    /// Translates the destination address; the port stays.
    #[must_use]
    pub fn dnat(self, address: IpAddr) -> Self {
        let to = NatTarget::Fixed { address: Some(address), port: None };
        self.with(Statement::Dnat { version: IpVersion::of(address), to })
    }

    /// Translates the destination address and port.
    #[must_use]
    pub fn dnat_to(self, address: IpAddr, port: u16) -> Self {
        let to = NatTarget::Fixed { address: Some(address), port: Some(port) };
        self.with(Statement::Dnat { version: IpVersion::of(address), to })
    }

    /// Translates the source address; the port changes only if another connection has it.
    #[must_use]
    pub fn snat(self, address: IpAddr) -> Self {
        let to = NatTarget::Fixed { address: Some(address), port: None };
        self.with(Statement::Snat { version: IpVersion::of(address), to })
    }

    /// Translates the source to the address of the way out.
    #[must_use]
    pub fn masquerade(self) -> Self {
        self.with(Statement::Masquerade)
    }

    /// Sends the frame out by another device (netdev tables).
    #[must_use]
    pub fn forward(self, to: &IfName) -> Self {
        self.with(Statement::Forward { to: to.clone() })
    }

    /// Drops and tells the sender.
    #[must_use]
    pub fn reject(self, how: Reject) -> Self {
        self.with(Statement::Reject(how))
    }

    /// Writes the packet's mark, all 32 bits.
    #[must_use]
    pub fn mark(self, mark: u32) -> Self {
        self.with(Statement::Set { field: Field::Mark, value: mark.into() })
    }
}
