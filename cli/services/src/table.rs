//! The nft table that makes VMs' Services reachable: `inet tapvisor-services`.
//!
//! *Flow.* A new connection's destination is looked up once, in the map of its family: address, protocol and port, or, if
//! the address is the host's own, protocol and port. The map leads to the chain of that Service port, which picks a ready VM
//! and translates. The cost does not grow with the number of Services.
//! *Guarantees.* A port of a Service without ready VMs is refused, as is a port that no Service at a cluster address has.
//! *Assumptions.* VM addresses lead back through this host. A VM that reaches a VM through a Service is masqueraded, as the
//! answer would otherwise take the short way past the translation; whether both hang on one bridge, and whether bridged
//! frames come through here (br_netfilter), makes no difference, because addresses are compared and not devices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hostnet::nft::{
    Chain, Direction, Element, Family as TableFamily, FibResult, Field, Hook, Reject, Rule, Set, Statement, Table,
    TableId, Test, Value, ValueKind, VerdictMap, priority,
};
use serde::{Deserialize, Serialize};
use terms::{IfName, IpNetwork, Protocol};
use wiring::Family;

use super::frontend::{Entries, Frontend, Parts};

/// Status bit of a connection whose destination was translated (IPS_DST_NAT of `linux/netfilter/nf_conntrack_common.h`).
const DST_NAT: u64 = 1 << 5;
/// Kind of an address that is the host's own (RTN_LOCAL of `linux/rtnetlink.h`).
const LOCAL: u32 = nix::libc::RTN_LOCAL as u32;

/// IPv4 and IPv6 for netfilter (NFPROTO_* of `linux/netfilter.h`).
const NFPROTO_IPV4: u32 = nix::libc::NFPROTO_IPV4.unsigned_abs();
const NFPROTO_IPV6: u32 = nix::libc::NFPROTO_IPV6.unsigned_abs();

/// All that the table serves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Services {
    /// One for each port and family of a Service.
    pub frontends: Vec<Frontend>,
    /// Addresses of all VMs, ready or not.
    pub vms: BTreeSet<IpAddr>,
    /// Ranges of cluster addresses; packets to one without a Service are rejected.
    pub ranges: Vec<IpNetwork>,
    /// Whether node ports on ::1 are refused, because answers would not arrive: [`super::loopback::is_unanswered`].
    #[serde(default)]
    pub refuses_loopback_v6: bool,
}

impl Services {
    /// The name of the table.
    #[must_use]
    pub fn table_id() -> TableId {
        TableId::new(TableFamily::Inet, wiring::SERVICES_TABLE)
    }

    /// The whole table with its chains and sets, as the kernel is to have it.
    #[must_use]
    pub fn table(&self) -> Table {
        let mut table =
            Table { id: Self::table_id(), sets: self.lookups().into_values().collect(), chains: Vec::new() };
        let Parts { chains, sets } = self.parts();
        table.sets.extend(sets.into_values());
        table.chains.extend(chains.into_values());
        table.chains.push(dispatch());
        table.chains.extend(self.hooks());
        table
    }

    /// The maps and sets that every packet is looked up in, by name, filled.
    #[must_use]
    pub fn lookups(&self) -> BTreeMap<String, Set> {
        let mut sets: BTreeMap<String, Set> = empty_lookups().map(|set| (set.name.clone(), set)).collect();
        let mut add = |name: String, element: Element| {
            sets.entry(name).and_modify(|set| set.elements.push(element));
        };
        for frontend in &self.frontends {
            let Entries { refused, addresses, node_port } = frontend.entries();
            let digit = digit(frontend.family);
            let (at_address, at_node) = if refused { ("refused", "refused-ports") } else { ("services", "node-ports") };
            addresses.into_iter().for_each(|element| add(format!("{at_address}{digit}"), element));
            if self.refuses_loopback_v6 && frontend.family == Family::V6 {
                node_port.iter().for_each(|port| add(UNANSWERED.to_owned(), Element { data: None, ..port.clone() }));
            }
            node_port.into_iter().for_each(|element| add(format!("{at_node}{digit}"), element));
        }
        for vm in &self.vms {
            add(format!("vms{}", digit(Family::of(*vm))), Element::of([*vm]));
        }
        sets
    }

    /// The chains and sets of all frontends that have a backend.
    #[must_use]
    pub fn parts(&self) -> Parts {
        let mut all = Parts::default();
        for frontend in self.frontends.iter().filter(|frontend| !frontend.backends.is_empty()) {
            let Parts { chains, sets } = frontend.parts();
            all.chains.extend(chains);
            all.sets.extend(sets);
        }
        all
    }

    fn hooks(&self) -> [Chain; 8] {
        let to_service = || Rule::named("to a Service").jump("services");
        let before_nat = priority::DSTNAT - 10;
        [
            Chain::filter("guard", Hook::Prerouting, priority::RAW).rules(keep_loopback()),
            Chain::filter("refuse-arriving", Hook::Prerouting, before_nat).rules(refusals()),
            Chain::filter("refuse-own", Hook::Output, before_nat).rules(unanswered()).rules(refusals()),
            Chain::nat("arriving", Hook::Prerouting, priority::DSTNAT).rule(to_service()),
            Chain::nat("own", Hook::Output, priority::DSTNAT).rule(to_service()),
            Chain::nat("leaving", Hook::Postrouting, priority::SRCNAT).rules(answers_through_us()),
            // What still goes to a cluster address after translation has found no Service there.
            Chain::filter("unserved-passing", Hook::Forward, priority::FILTER)
                .rules(self.ranges.iter().flat_map(unserved)),
            Chain::filter("unserved-own", Hook::Output, priority::FILTER).rules(self.ranges.iter().flat_map(unserved)),
        ]
    }
}

fn digit(family: Family) -> char {
    match family {
        Family::V4 => '4',
        Family::V6 => '6',
    }
}

/// The node ports that are refused on ::1.
const UNANSWERED: &str = "unanswered6";

fn unanswered() -> [Rule; 2] {
    let to_loopback = Rule::named("no answer arrives at ::1 through br_netfilter").daddr(Ipv6Addr::LOCALHOST.into());
    refusing(to_loopback.in_set([Field::L4proto, Field::ThDport], UNANSWERED))
}

const FAMILIES: [(Family, Field, Field, ValueKind); 2] = [
    (Family::V4, Field::IpSaddr, Field::IpDaddr, ValueKind::Ipv4),
    (Family::V6, Field::Ip6Saddr, Field::Ip6Daddr, ValueKind::Ipv6),
];

fn empty_lookups() -> impl Iterator<Item = Set> {
    let unanswered = Set::new(UNANSWERED, [ValueKind::L4proto, ValueKind::Port]);
    let of_families = FAMILIES.into_iter().flat_map(|(family, _, _, address)| {
        let (at_address, at_node) =
            ([address, ValueKind::L4proto, ValueKind::Port], [ValueKind::L4proto, ValueKind::Port]);
        let name = |what: &str| format!("{what}{}", digit(family));
        [
            Set::verdict_map(&name("services"), at_address),
            Set::verdict_map(&name("node-ports"), at_node),
            Set::new(&name("refused"), at_address),
            Set::new(&name("refused-ports"), at_node),
            Set::new(&name("vms"), [address]),
        ]
    });
    of_families.chain([unanswered])
}

/// The one chain where the way to a Service is looked up.
fn dispatch() -> Chain {
    let look_up = |fields: Vec<Field>, map: String| Statement::VerdictMap { fields, map: VerdictMap::Named(map) };
    FAMILIES.into_iter().fold(Chain::regular("services"), |chain, (family, _, daddr, _)| {
        let digit = digit(family);
        let at_address = look_up(vec![daddr, Field::L4proto, Field::ThDport], format!("services{digit}"));
        let at_node = look_up(vec![Field::L4proto, Field::ThDport], format!("node-ports{digit}"));
        chain
            .rule(Rule::named("by address").with(at_address))
            .rule(to_the_host(Rule::named("by the host's port").is(Field::Nfproto, nfproto(family))).with(at_node))
    })
}

fn refusals() -> impl Iterator<Item = Rule> {
    const NAME: &str = "no VM is ready";
    FAMILIES.into_iter().flat_map(|(family, _, daddr, _)| {
        let digit = digit(family);
        let at_address = [daddr, Field::L4proto, Field::ThDport];
        let at_node = [Field::L4proto, Field::ThDport];
        [
            Rule::named(NAME).in_set(at_address, &format!("refused{digit}")),
            to_the_host(Rule::named(NAME).is(Field::Nfproto, nfproto(family)))
                .in_set(at_node, &format!("refused-ports{digit}")),
        ]
        .into_iter()
        .flat_map(refusing)
        .collect::<Vec<_>>()
    })
}

/// Answers must come back through the translation: between VMs, and to the host's loopback.
fn answers_through_us() -> impl Iterator<Item = Rule> {
    let translated = |name: &str| Rule::named(name).when(Field::CtStatus, Test::AnyBit(DST_NAT));
    let between_vms = FAMILIES.into_iter().map(move |(family, saddr, daddr, _)| {
        let vms = format!("vms{}", digit(family));
        translated("VM to VM").in_set([saddr], &vms).in_set([daddr], &vms).counter().masquerade()
    });
    let loopback = LOOPBACKS.into_iter().map(move |(saddr, _, loopback)| {
        let from_it = translated("from the host's loopback").when(saddr, Test::Within(loopback));
        from_it.is_not(Field::Oifname, &loopback_device()).counter().masquerade()
    });
    between_vms.chain(loopback)
}

const LOOPBACK: IpNetwork = match terms::Ipv4Network::new_checked(Ipv4Addr::new(127, 0, 0, 0), 8) {
    Some(network) => IpNetwork::V4(network),
    None => unreachable!(),
};

const LOOPBACK_V6: IpNetwork = match terms::Ipv6Network::new_checked(Ipv6Addr::LOCALHOST, 128) {
    Some(network) => IpNetwork::V6(network),
    None => unreachable!(),
};

const LOOPBACKS: [(Field, Field, IpNetwork); 2] =
    [(Field::IpSaddr, Field::IpDaddr, LOOPBACK), (Field::Ip6Saddr, Field::Ip6Daddr, LOOPBACK_V6)];

/// NodePorts on 127.0.0.1 need `route_localnet`, and on ::1 a route. With those a VM could send to the host's loopback, and from
/// addresses of it that the kernel does not know to be its own, as 127.0.0.2.
fn keep_loopback() -> impl Iterator<Item = Rule> {
    LOOPBACKS.into_iter().flat_map(|(saddr, daddr, loopback)| {
        let from_outside = |name: &str| Rule::named(name).is_not(Field::Iifname, &loopback_device());
        [
            from_outside("to the host's loopback").when(daddr, Test::Within(loopback)).counter().drop(),
            from_outside("from a loopback address").when(saddr, Test::Within(loopback)).counter().drop(),
        ]
    })
}

fn unserved(range: &IpNetwork) -> [Rule; 2] {
    let daddr = if range.is_ipv4() { Field::IpDaddr } else { Field::Ip6Daddr };
    refusing(Rule::named(format!("no Service at this port of {range}")).when(daddr, Test::Within(*range)))
}

/// TCP is told by a reset: the kernel does not send the ICMP error for a packet of the host's own that leaves by the
/// loopback device, where the route to the Services' range leads.
fn refusing(rule: Rule) -> [Rule; 2] {
    let reset = rule.clone().is(Field::L4proto, Protocol::Tcp).counter().reject(Reject::TcpReset);
    [reset, rule.counter().reject(Reject::PortUnreachable)]
}

fn to_the_host(rule: Rule) -> Rule {
    rule.is(Field::Fib { address: Direction::Destination, result: FibResult::AddressKind }, Value::from(LOCAL))
}

fn nfproto(family: Family) -> u32 {
    match family {
        Family::V4 => NFPROTO_IPV4,
        Family::V6 => NFPROTO_IPV6,
    }
}

#[expect(clippy::expect_used, reason = "\"lo\" is a valid interface name")]
fn loopback_device() -> IfName {
    "lo".parse().expect("\"lo\" is a valid interface name")
}
