//! Chains: lists of rules, some of them hooked into a packet's way.

use serde::{Deserialize, Serialize};
use terms::IfName;

use super::{Family, Rule};

/// The order of base chains at a hook, lowest first (NF_IP_PRI_* of `linux/netfilter_ipv4.h`).
pub mod priority {
    /// -300: before connection tracking.
    pub const RAW: i32 = libc::NF_IP_PRI_RAW;
    /// Before routing, after connection tracking.
    pub const MANGLE: i32 = libc::NF_IP_PRI_MANGLE;
    /// -100: destination translation at prerouting.
    pub const DSTNAT: i32 = libc::NF_IP_PRI_NAT_DST;
    /// 0: filtering.
    pub const FILTER: i32 = libc::NF_IP_PRI_FILTER;
    /// 100: source translation at postrouting.
    pub const SRCNAT: i32 = libc::NF_IP_PRI_NAT_SRC;
}

/// A chain with its rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Chain {
    /// Its name, unique in the table.
    pub name: String,
    /// Where it is hooked in; `None` if only other chains lead to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// Its rules in the order of evaluation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

impl Chain {
    /// An empty chain that others jump to.
    #[must_use]
    pub fn regular(name: &str) -> Self {
        Self { name: name.to_owned(), base: None, rules: Vec::new() }
    }

    /// An empty filter chain at a hook, accepting what its rules leave undecided.
    #[must_use]
    pub fn filter(name: &str, hook: Hook, priority: i32) -> Self {
        Self::hooked(name, ChainKind::Filter, hook, priority)
    }

    /// An empty address-translating chain at a hook.
    #[must_use]
    pub fn nat(name: &str, hook: Hook, priority: i32) -> Self {
        Self::hooked(name, ChainKind::Nat, hook, priority)
    }

    /// An empty chain of a netdev table for what enters one device.
    #[must_use]
    pub fn ingress(name: &str, device: IfName, priority: i32) -> Self {
        Self { base: Some(Base::at(ChainKind::Filter, Hook::Ingress, priority, Some(device))), ..Self::regular(name) }
    }

    /// An empty chain of a netdev table for what leaves one device (kernel 5.16 or newer).
    #[must_use]
    pub fn egress(name: &str, device: IfName, priority: i32) -> Self {
        Self { base: Some(Base::at(ChainKind::Filter, Hook::Egress, priority, Some(device))), ..Self::regular(name) }
    }

    fn hooked(name: &str, kind: ChainKind, hook: Hook, priority: i32) -> Self {
        Self { base: Some(Base::at(kind, hook, priority, None)), ..Self::regular(name) }
    }

    /// The same, dropping what its rules leave undecided; of no effect on a chain without a hook.
    #[must_use]
    pub fn dropping(mut self) -> Self {
        if let Some(base) = &mut self.base {
            base.policy = Policy::Drop;
        }
        self
    }

    /// The same with one more rule.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// The same with more rules.
    #[must_use]
    pub fn rules(mut self, rules: impl IntoIterator<Item = Rule>) -> Self {
        self.rules.extend(rules);
        self
    }
}

/// How a chain is hooked into a packet's way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Base {
    /// What its rules may do.
    pub kind: ChainKind,
    /// The hook of netfilter, or ingress and egress of a device.
    pub hook: Hook,
    /// Rank among the hook's users; lower comes first.
    pub priority: i32,
    /// The device, in netdev tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<IfName>,
    /// What happens to what no rule decided.
    #[serde(default)]
    pub policy: Policy,
}

impl Base {
    fn at(kind: ChainKind, hook: Hook, priority: i32, device: Option<IfName>) -> Self {
        Self { kind, hook, priority, device, policy: Policy::Accept }
    }
}

/// What a base chain's rules may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ChainKind {
    /// Accept and drop packets, at any hook.
    Filter,
    /// Translate addresses; only the first packet of a connection comes here.
    Nat,
    /// Route again after a change.
    Route,
}

impl ChainKind {
    /// The kernel's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        }
    }
}

/// A place on a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Hook {
    /// Just received, not routed yet.
    Prerouting,
    /// Routed to this host itself.
    Input,
    /// Routed from one device to another.
    Forward,
    /// Made by this host, before it leaves.
    Output,
    /// Routed and about to leave by a device.
    Postrouting,
    /// Entering a device (netdev and inet).
    Ingress,
    /// Leaving a device (netdev only).
    Egress,
}

impl Hook {
    /// The kernel's number for it in a family; `None` where the family has no such hook.
    #[must_use]
    #[expect(clippy::cast_sign_loss, reason = "hook numbers of the kernel's headers are from 0 to 5")]
    pub fn number(self, family: Family) -> Option<u32> {
        let number = match (family, self) {
            (Family::Netdev, Self::Ingress) => libc::NF_NETDEV_INGRESS,
            (Family::Netdev, Self::Egress) => libc::NF_NETDEV_EGRESS,
            (Family::Arp, Self::Input) => libc::NF_ARP_IN,
            (Family::Arp, Self::Output) => libc::NF_ARP_OUT,
            (Family::Inet, Self::Ingress) => libc::NF_INET_INGRESS,
            (Family::Netdev | Family::Arp, _) | (_, Self::Ingress | Self::Egress) => return None,
            (_, Self::Prerouting) => libc::NF_INET_PRE_ROUTING,
            (_, Self::Input) => libc::NF_INET_LOCAL_IN,
            (_, Self::Forward) => libc::NF_INET_FORWARD,
            (_, Self::Output) => libc::NF_INET_LOCAL_OUT,
            (_, Self::Postrouting) => libc::NF_INET_POST_ROUTING,
        };
        Some(number as u32)
    }
}

impl Hook {
    /// The hook that has this number in a family.
    #[must_use]
    pub fn of(number: u32, family: Family) -> Option<Self> {
        let all = [
            Self::Prerouting,
            Self::Input,
            Self::Forward,
            Self::Output,
            Self::Postrouting,
            Self::Ingress,
            Self::Egress,
        ];
        all.into_iter().find(|hook| hook.number(family) == Some(number))
    }
}

/// What happens to what no rule of a base chain decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Policy {
    /// It goes on; the default.
    #[default]
    Accept,
    /// It is dropped without an answer.
    Drop,
}
