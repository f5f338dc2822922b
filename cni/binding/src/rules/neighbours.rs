//! Keeps a masquerade guest from filling the neighbour tables, which all namespaces of a host share.
//!
//! The kernel makes an entry for the sender of an ARP request or a neighbour solicitation, and for every address on a link that
//! it sends a packet to. So the guest speaks for its own addresses only, reaches nothing behind its tap but the gateway, and
//! begins to talk to so many destinations on the pod's own link at once.
//! The hooks are those after VLAN tags were taken off: a chain at the tap would miss frames that are tagged twice with VLAN 0.

use std::net::Ipv4Addr;

use hostnet::nft::{
    CT_ESTABLISHED, CT_RELATED, Chain, Element, Field, Hook, Rule, Set, Statement, Table, Test, UpdateSet, Value,
    ValueKind, priority,
};
use terms::IpNetwork;
use wiring::{Family, MASQUERADE_GATEWAY_LINK_LOCAL};

use super::{daddr, ip_kind, link_local_v6, named, with_elements};
use crate::masquerade::{Masquerade, Side};
use crate::names::{GUARD, NEIGHBOURS, RuleName, link_local_set, link_set, peer_set};

/// Link-local addresses that a guest may use in a minute. Systems have one, or one more after each start.
const LINK_LOCAL_ADDRESSES: u32 = 8;
const LINK_LOCAL_SECONDS: u32 = 60;

/// Destinations on the pod's own link that a guest may begin to talk to in so many seconds: the kernel asks for one that does
/// not answer for three.
const PEERS: u32 = 128;
const PEER_SECONDS: u32 = 5;

/// ARP and neighbour discovery from a guest, each: far more than systems send, far less than a flood.
const MESSAGES_PER_SECOND: u32 = 50;
const MESSAGES_AT_ONCE: u32 = 100;

/// Router solicitation, router advertisement, neighbour solicitation, neighbour advertisement, redirect (RFC 4861 §4).
const NEIGHBOUR_DISCOVERY: (u8, u8) = (133, 137);

/// The rules for ARP, which only an ARP table sees.
pub(super) fn arp(table: Table, masqueraded: &[Masquerade]) -> Table {
    table.chain(Chain::filter(GUARD, Hook::Input, priority::FILTER).rules(masqueraded.iter().flat_map(arp_rules)))
}

fn arp_rules(nic: &Masquerade) -> Vec<Rule> {
    let from_guest = |name| named(nic, name).iifname(&nic.tap);
    let Some(side) = &nic.v4 else { return vec![from_guest(RuleName::ArpFamilyAbsent).counter().drop()] };
    vec![
        from_guest(RuleName::ArpNotFromGuest)
            .is_not(Field::ArpSenderIp, side.guest)
            .is_not(Field::ArpSenderIp, Ipv4Addr::UNSPECIFIED)
            .counter()
            .drop(),
        from_guest(RuleName::ExcessArp).above(MESSAGES_PER_SECOND, MESSAGES_AT_ONCE).counter().drop(),
    ]
}

/// The sets that the rules for IP look into; those of what a guest uses are filled by rules.
pub(super) fn sets(nic: &Masquerade) -> Vec<Set> {
    let link_local = Set::new(&link_local_set(&nic.pod_interface), [ValueKind::Ipv6])
        .dynamic(LINK_LOCAL_SECONDS, LINK_LOCAL_ADDRESSES);
    let mut sets: Vec<_> = nic.v6.iter().map(|_| link_local.clone()).collect();
    for (family, side) in linked(nic) {
        let ranges = side.networks.iter().map(|network| Element::range(network.network(), network.broadcast()));
        sets.push(with_elements(
            Set::new(&link_set(&nic.pod_interface, family), [ip_kind(family)]).of_ranges(),
            ranges,
        ));
        sets.push(Set::new(&peer_set(&nic.pod_interface, family), [ip_kind(family)]).dynamic(PEER_SECONDS, PEERS));
    }
    sets
}

/// The rules for IP, for the end of a guard that has dropped sources which are neither the guest's nor link-local.
pub(super) fn ip_rules(nic: &Masquerade) -> Vec<Rule> {
    let from_guest = |name| named(nic, name).iifname(&nic.tap);
    let mut rules: Vec<_> = nic
        .sides()
        .map(|(family, side)| {
            let rule = from_guest(RuleName::GuestNeighbour(family));
            let daddr = daddr(family);
            rule.when(daddr, Test::Within(subnet(side))).is_not(daddr, side.gateway.ip()).counter().drop()
        })
        .collect();
    if nic.v6.is_some() {
        let link_local = |name| from_guest(name).when(Field::Ip6Saddr, Test::Within(link_local_v6()));
        let remember = UpdateSet {
            set: link_local_set(&nic.pod_interface),
            fields: vec![Field::Ip6Saddr],
            refresh: true,
            timeout_seconds: None,
        };
        let (first, last) = NEIGHBOUR_DISCOVERY;
        rules.extend([
            from_guest(RuleName::GuestLinkLocalNeighbour)
                .when(Field::Ip6Daddr, Test::Within(link_local_v6()))
                .is_not(Field::Ip6Daddr, MASQUERADE_GATEWAY_LINK_LOCAL)
                .counter()
                .drop(),
            // Ends here when the set is full.
            link_local(RuleName::GuestLinkLocalAddress).with(Statement::UpdateSet(remember)),
            link_local(RuleName::ExcessLinkLocalAddresses)
                .not_in_set([Field::Ip6Saddr], &link_local_set(&nic.pod_interface))
                .counter()
                .drop(),
            from_guest(RuleName::ExcessDiscovery)
                .when(Field::Icmpv6Type, Test::Range(Value::from(first), Value::from(last)))
                .above(MESSAGES_PER_SECOND, MESSAGES_AT_ONCE)
                .counter()
                .drop(),
        ]);
    }
    rules
}

/// New connections to the pod's own link: each destination there becomes a neighbour of the pod. Those beyond a gateway do not.
pub(super) fn forward(masqueraded: &[Masquerade]) -> Option<Chain> {
    let rules: Vec<_> =
        masqueraded.iter().flat_map(|nic| linked(nic).flat_map(move |(family, _)| to_link(nic, family))).collect();
    (!rules.is_empty()).then(|| Chain::filter(NEIGHBOURS, Hook::Forward, priority::FILTER).rules(rules))
}

fn to_link(nic: &Masquerade, family: Family) -> [Rule; 2] {
    let daddr = daddr(family);
    let new = |name| {
        named(nic, name)
            .iifname(&nic.tap)
            .when(Field::CtState, Test::NoBit(CT_ESTABLISHED | CT_RELATED))
            .in_set([daddr], &link_set(&nic.pod_interface, family))
    };
    let update = UpdateSet {
        set: peer_set(&nic.pod_interface, family),
        fields: vec![daddr],
        refresh: true,
        timeout_seconds: None,
    };
    [
        // Ends here when the set is full.
        new(RuleName::PodNeighbour(family)).with(Statement::UpdateSet(update)),
        new(RuleName::ExcessPodNeighbours(family))
            .not_in_set([daddr], &peer_set(&nic.pod_interface, family))
            .counter()
            .drop(),
    ]
}

/// The families in which the pod has neighbours.
fn linked(nic: &Masquerade) -> impl Iterator<Item = (Family, &Side)> {
    nic.sides().filter(|(_, side)| !side.networks.is_empty())
}

fn subnet(side: &Side) -> IpNetwork {
    IpNetwork::new(side.gateway.network(), side.gateway.prefix()).unwrap_or(side.gateway)
}
