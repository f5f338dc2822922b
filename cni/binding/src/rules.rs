//! The nft tables: `inet tapvisor` translates addresses and guards, `netdev tapvisor` joins devices, `arp tapvisor` guards too,
//! and keeps the namespace silent on interfaces that are a guest's.

mod neighbours;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hostnet::nft::{
    CT_INVALID, Chain, Element, Family as TableFamily, Field, Hook, Rule, Set, Table, TableId, Test, ValueKind,
    priority,
};
use terms::{IfName, IpNetwork, Ipv4Network, Ipv6Network, Protocol};
use wiring::{Family, Mesh, VIRTUAL_ROUTER};

use super::bridge::{Bridge, Service};
use super::masquerade::{Masquerade, Side};
use super::names::{
    self, GUARD, INVALID, MESH_SET, OUTPUT, POSTROUTING, PREROUTING, RuleName, SILENT, SILENT_RULE, SILENT_SET, TABLE,
    mesh_chain, pod_set, port_set,
};

const DHCPV4_SERVER: u16 = 67;
const DHCPV4_CLIENT: u16 = 68;
const DHCPV6_SERVER: u16 = 547;
/// All_DHCP_Relay_Agents_and_Servers (RFC 8415 §7.1), the one address that clients ask.
const DHCPV6_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const SSH: u16 = 22;

/// The ports of Istio's side-car itself (istio.io, "Ports used by Istio").
const MESH_PORTS: [u16; 10] = [15000, 15001, 15004, 15006, 15008, 15009, 15020, 15021, 15053, 15090];

/// Where Istio's side-car sends from when it hands on inbound IPv6 traffic; the IPv4 one, 127.0.0.6, is loopback anyway.
const MESH_SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// The tables that a wiring can have.
pub(crate) fn ids() -> [TableId; 3] {
    [TableFamily::Inet, TableFamily::Netdev, TableFamily::Arp].map(|family| TableId::new(family, TABLE))
}

/// All tables of a wiring; none if there is nothing to wire.
pub(crate) fn tables(masqueraded: &[Masquerade], bridged: &[Bridge]) -> Vec<Table> {
    if masqueraded.is_empty() && bridged.is_empty() {
        return Vec::new();
    }
    vec![inet(masqueraded, bridged), netdev(masqueraded, bridged), arp(masqueraded, bridged)]
}

fn arp(masqueraded: &[Masquerade], bridged: &[Bridge]) -> Table {
    let table = Table::new(TableFamily::Arp, TABLE);
    let table = if masqueraded.is_empty() { table } else { neighbours::arp(table, masqueraded) };
    if bridged.is_empty() { table } else { silence(table, Hook::Output, bridged) }
}

fn inet(masqueraded: &[Masquerade], bridged: &[Bridge]) -> Table {
    let mut table = Table::new(TableFamily::Inet, TABLE);
    if masqueraded.iter().any(|nic| nic.mesh.is_some()) {
        let ports = MESH_PORTS.iter().map(|port| Element::of([*port]));
        table = table.set(with_elements(Set::new(MESH_SET, [ValueKind::Port]), ports));
    }
    for nic in masqueraded {
        for (family, side) in nic.sides() {
            let addresses = side.pod.iter().map(|address| Element::of([*address]));
            table =
                table.set(with_elements(Set::new(&pod_set(&nic.pod_interface, family), [ip_kind(family)]), addresses));
        }
        if !nic.ports.is_empty() {
            let ports =
                nic.ports.iter().map(|port| Element::of([u64::from(number(port.protocol)), u64::from(port.port)]));
            table = table.set(with_elements(
                Set::new(&port_set(&nic.pod_interface), [ValueKind::L4proto, ValueKind::Port]),
                ports,
            ));
        }
        table.sets.extend(neighbours::sets(nic));
    }
    if !masqueraded.is_empty() {
        table = table
            // GUARD is before connection tracking, so that what it drops leaves no entry; INVALID needs the state, and is after it.
            .chain(Chain::filter(GUARD, Hook::Prerouting, priority::RAW).rules(masqueraded.iter().flat_map(guard)))
            .chain(
                Chain::filter(INVALID, Hook::Prerouting, priority::MANGLE)
                    .rules(masqueraded.iter().flat_map(no_connection)),
            )
            .chain(
                Chain::nat(PREROUTING, Hook::Prerouting, priority::DSTNAT).rules(masqueraded.iter().flat_map(inbound)),
            )
            .chain(Chain::nat(OUTPUT, Hook::Output, priority::DSTNAT).rules(masqueraded.iter().flat_map(local)))
            .chain(
                Chain::nat(POSTROUTING, Hook::Postrouting, priority::SRCNAT)
                    .rules(masqueraded.iter().flat_map(outbound)),
            );
        table.chains.extend(neighbours::forward(masqueraded));
        for nic in masqueraded.iter().filter(|nic| nic.mesh.is_some()) {
            table = table.chain(from_mesh(nic));
        }
    }
    if bridged.is_empty() { table } else { silence(table, Hook::Postrouting, bridged) }
}

/// What a guest may not send at all: from an address that is not its own, to the pod's loopback, or to invented neighbours.
fn guard(nic: &Masquerade) -> Vec<Rule> {
    let from_guest = |name| named(nic, name).iifname(&nic.tap);
    let mut rules = Vec::new();
    match &nic.v4 {
        Some(side) => rules.extend([
            from_guest(RuleName::ToLoopbackNetwork).when(Field::IpDaddr, Test::Within(loopback_v4())).counter().drop(),
            from_guest(RuleName::NotFromGuest(Family::V4))
                .is_not(Field::IpSaddr, side.guest)
                .is_not(Field::IpSaddr, Ipv4Addr::UNSPECIFIED)
                .counter()
                .drop(),
        ]),
        None => rules.push(
            from_guest(RuleName::FamilyAbsent(Family::V4)).is(Field::Nfproto, nfproto(Family::V4)).counter().drop(),
        ),
    }
    match &nic.v6 {
        Some(side) => rules.push(
            from_guest(RuleName::NotFromGuest(Family::V6))
                .is_not(Field::Ip6Saddr, side.guest)
                .is_not(Field::Ip6Saddr, Ipv6Addr::UNSPECIFIED)
                .when(Field::Ip6Saddr, Test::NotWithin(link_local_v6()))
                .counter()
                .drop(),
        ),
        // A router advertisement of the guest would otherwise give the pod an address and a route.
        None => rules.push(
            from_guest(RuleName::FamilyAbsent(Family::V6)).is(Field::Nfproto, nfproto(Family::V6)).counter().drop(),
        ),
    }
    rules.extend(neighbours::ip_rules(nic));
    rules
}

/// What connection tracking can make nothing of is never translated: from the guest it would leave with the guest's own address,
/// and for the guest it would reach the pod's own processes, whose answer ends the guest's connection. Neighbour discovery and
/// errors about known connections are not among it.
fn no_connection(nic: &Masquerade) -> [Rule; 2] {
    let from = [(RuleName::NoConnectionFromGuest, &nic.tap), (RuleName::NoConnectionFromNetwork, &nic.pod_interface)];
    from.map(|(name, device)| {
        named(nic, name).when(Field::CtState, Test::AnyBit(CT_INVALID)).iifname(device).counter().drop()
    })
}

/// What comes for the pod goes to the guest; what is not declared stays with the pod's own processes and is counted.
fn inbound(nic: &Masquerade) -> Vec<Rule> {
    nic.sides().flat_map(|(family, side)| inbound_side(nic, family, side)).collect()
}

fn inbound_side(nic: &Masquerade, family: Family, side: &Side) -> Vec<Rule> {
    let to_pod = |name: RuleName, from: &IfName| {
        named(nic, name).iifname(from).in_set([daddr(family)], &pod_set(&nic.pod_interface, family))
    };
    let ping = to_pod(RuleName::Ping(family), &nic.pod_interface)
        .is(echo_field(family), echo_request(family))
        .counter()
        .dnat(side.guest);
    let undeclared = to_pod(RuleName::Undeclared(family), &nic.pod_interface).counter();
    let hairpin = to_pod(RuleName::GuestToItself(family), &nic.tap).counter().dnat(side.guest);
    let ssh_declared =
        nic.ports.is_empty() || nic.ports.iter().any(|port| port.protocol == Protocol::Tcp && port.port == SSH);
    match nic.mesh {
        // The side-car takes the rest and hands it on over loopback; it does not take SSH.
        Some(Mesh::Istio) => {
            let ssh =
                to_pod(RuleName::Ssh(family), &nic.pod_interface).dport(Protocol::Tcp, SSH).counter().dnat(side.guest);
            std::iter::once(ssh).filter(|_| ssh_declared).chain([ping]).collect()
        }
        None if nic.ports.is_empty() => {
            vec![to_pod(RuleName::Inbound(family), &nic.pod_interface).counter().dnat(side.guest), hairpin]
        }
        None => {
            let declared =
                declared(to_pod(RuleName::Inbound(family), &nic.pod_interface), nic).counter().dnat(side.guest);
            vec![declared, ping, undeclared, hairpin]
        }
    }
}

/// What the pod's own processes send to the loopback goes to the guest: port-forward, and a side-car that hands on.
fn local(nic: &Masquerade) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (family, side) in nic.sides() {
        let to_loopback = named(nic, RuleName::Loopback(family)).daddr(loopback(family));
        if nic.mesh.is_none() {
            rules.push(declared(to_loopback, nic).counter().dnat(side.guest));
            continue;
        }
        let to_pod = named(nic, RuleName::SideCar(family));
        rules.push(to_loopback.jump(&mesh_chain(&nic.pod_interface)));
        rules.push(
            to_pod.in_set([daddr(family)], &pod_set(&nic.pod_interface, family)).jump(&mesh_chain(&nic.pod_interface)),
        );
    }
    rules
}

fn from_mesh(nic: &Masquerade) -> Chain {
    let own = named(nic, RuleName::SideCarOwn).in_set([Field::TcpDport], MESH_SET).ret();
    let to_guest = nic.sides().map(|(family, side)| {
        let rule = named(nic, RuleName::FromSideCar(family));
        declared(rule.is(Field::Nfproto, nfproto(family)), nic).counter().dnat(side.guest)
    });
    Chain::regular(&mesh_chain(&nic.pod_interface)).rule(own).rules(to_guest)
}

/// What the guest sends leaves as the pod; what reaches it from the pod itself comes from the gateway.
fn outbound(nic: &Masquerade) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (family, side) in nic.sides() {
        let rule = |name| named(nic, name);
        let gateway = side.gateway.ip();
        rules.push(
            rule(RuleName::Outbound(family)).is_not(Field::Oifname, &nic.tap).saddr(side.guest).counter().masquerade(),
        );
        rules.push(rule(RuleName::GuestToItself(family)).oifname(&nic.tap).saddr(side.guest).counter().snat(gateway));
        let from_loopback = rule(RuleName::Loopback(family)).oifname(&nic.tap);
        rules.push(match family {
            Family::V4 => from_loopback.when(Field::IpSaddr, Test::Within(loopback_v4())).counter().snat(gateway),
            Family::V6 => from_loopback.saddr(Ipv6Addr::LOCALHOST.into()).counter().snat(gateway),
        });
        if nic.mesh.is_some() && family == Family::V6 {
            rules.push(
                rule(RuleName::SideCar(family)).oifname(&nic.tap).saddr(MESH_SOURCE_V6.into()).counter().snat(gateway),
            );
        }
    }
    rules
}

/// The namespace sends nothing on an interface that is a guest's: its own solicitations would come from the guest's address.
/// Nor on the taps, where the guest would take it for the network. After routing, so that what is forwarded is caught as well
/// as what is made here; frames by `fwd` do not come this way.
fn silence(table: Table, hook: Hook, bridged: &[Bridge]) -> Table {
    let devices = bridged.iter().flat_map(|nic| {
        [&nic.pod_interface, &nic.tap].into_iter().chain(nic.service.as_ref().map(|service| &service.tap))
    });
    let devices = devices.map(|device| Element::of([device]));
    let rule = Rule::named(SILENT_RULE).in_set([Field::Oifname], SILENT_SET).counter().drop();
    table
        .set(with_elements(Set::new(SILENT_SET, [ValueKind::Ifname]), devices))
        .chain(Chain::filter(SILENT, hook, priority::FILTER).rule(rule))
}

fn netdev(masqueraded: &[Masquerade], bridged: &[Bridge]) -> Table {
    let mut table = Table::new(TableFamily::Netdev, TABLE);
    for nic in masqueraded {
        let asked = asked_services(&nic.pod_interface, &nic.service_tap, nic.v4.is_some(), nic.v6.is_some());
        table = table.chain(ingress(names::from_vm(&nic.pod_interface), &nic.tap).rules(asked)).chain(
            ingress(names::from_launcher(&nic.pod_interface), &nic.service_tap)
                .rule(all_to(&nic.pod_interface, &nic.tap)),
        );
    }
    for nic in bridged {
        table = table.chain(from_vm(nic)).chain(from_network(nic));
        if let Some(service) = &nic.service {
            table = table.chain(from_launcher(nic, service));
        }
    }
    table
}

/// What a guest asks of its network goes to the launcher, unicast renewals included. Not what it asks within a VLAN of its own,
/// nor what it hands on for others (RFC 2131 §4.1: a client's own port); the launcher would answer neither.
fn asked_services(nic: &IfName, to: &IfName, v4: bool, v6: bool) -> Vec<Rule> {
    let mut rules = Vec::new();
    if v4 {
        let rule = untagged(nic, RuleName::Dhcp(Family::V4), Family::V4).is(Field::UdpSport, DHCPV4_CLIENT);
        rules.push(rule.is(Field::UdpDport, DHCPV4_SERVER).counter().forward(to));
    }
    if v6 {
        let rule = untagged(nic, RuleName::Dhcp(Family::V6), Family::V6).is(Field::Ip6Daddr, DHCPV6_SERVERS);
        rules.push(rule.is(Field::UdpDport, DHCPV6_SERVER).counter().forward(to));
        let rule = untagged(nic, RuleName::RouterSolicitation, Family::V6);
        rules.push(rule.is(Field::Icmpv6Type, ROUTER_SOLICITATION).counter().forward(to));
    }
    rules
}

fn from_vm(nic: &Bridge) -> Chain {
    let mut chain = ingress(names::from_vm(&nic.pod_interface), &nic.tap);
    if let Some(service) = &nic.service {
        chain = chain.rules(asked_services(&nic.pod_interface, &service.tap, service.v4, service.v6));
        if !service.global_gateways.is_empty() {
            let rule = untagged(&nic.pod_interface, RuleName::VirtualRouterSolicitation, Family::V6);
            let rule = rule.is(Field::Icmpv6Type, NEIGHBOUR_SOLICITATION).is(Field::NdTarget, VIRTUAL_ROUTER);
            chain = chain.rule(rule.counter().forward(&service.tap));
        }
    }
    chain.rule(all_to(&nic.pod_interface, &nic.pod_interface))
}

fn from_network(nic: &Bridge) -> Chain {
    let mut chain = ingress(names::from_network(&nic.pod_interface), &nic.pod_interface);
    if let Some(service) = &nic.service {
        if !service.global_gateways.is_empty() {
            let to_launcher =
                |name| untagged(&nic.pod_interface, name, Family::V6).is(Field::Ip6Daddr, service.link_local);
            let answer = to_launcher(RuleName::GatewayAnswer).is(Field::Icmpv6Type, NEIGHBOUR_ADVERTISEMENT);
            chain = chain
                .rule(answer.counter().forward(&service.tap))
                .rule(to_launcher(RuleName::ToLauncher).counter().drop());
        }
        if service.v6 {
            let advertisement = untagged(&nic.pod_interface, RuleName::NetworkAdvertisements, Family::V6);
            chain = chain.rule(advertisement.is(Field::Icmpv6Type, ROUTER_ADVERTISEMENT).counter().drop());
        }
    }
    chain.rule(all_to(&nic.pod_interface, &nic.tap))
}

/// The launcher talks to the guest alone, but that it may ask where the gateway is.
fn from_launcher(nic: &Bridge, service: &Service) -> Chain {
    let mut chain = ingress(names::from_launcher(&nic.pod_interface), &service.tap);
    if !service.global_gateways.is_empty() {
        let gateways = service.global_gateways.iter().map(|gateway| (*gateway).into()).collect();
        let question = Rule::named(RuleName::GatewaySolicitation.comment(&nic.pod_interface))
            .is(Field::Ip6Saddr, service.link_local)
            .is(Field::Icmpv6Type, NEIGHBOUR_SOLICITATION)
            .when(Field::NdTarget, Test::OneOf(gateways));
        chain = chain.rule(question.counter().forward(&nic.pod_interface));
    }
    chain.rule(all_to(&nic.pod_interface, &nic.tap))
}

fn ingress(name: String, device: &IfName) -> Chain {
    Chain { name, ..Chain::ingress("", device.clone(), priority::FILTER) }
}

/// A rule for frames of that family without VLAN tag: the field is the frame's own, where what the kernel knows of the packet
/// is about what lies behind the tag.
fn untagged(nic: &IfName, name: RuleName, family: Family) -> Rule {
    Rule::named(name.comment(nic)).is(Field::EtherType, ethertype(family))
}

fn all_to(nic: &IfName, device: &IfName) -> Rule {
    Rule::named(names::to_device(nic, device)).counter().forward(device)
}

fn named(nic: &Masquerade, name: RuleName) -> Rule {
    Rule::named(name.comment(&nic.pod_interface))
}

/// Only declared ports go on; all if none is declared.
fn declared(rule: Rule, nic: &Masquerade) -> Rule {
    if nic.ports.is_empty() {
        rule
    } else {
        rule.in_set([Field::L4proto, Field::ThDport], &port_set(&nic.pod_interface))
    }
}

fn with_elements(set: Set, elements: impl Iterator<Item = Element>) -> Set {
    elements.fold(set, Set::element)
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

fn daddr(family: Family) -> Field {
    if family == Family::V4 { Field::IpDaddr } else { Field::Ip6Daddr }
}

fn echo_field(family: Family) -> Field {
    if family == Family::V4 { Field::IcmpType } else { Field::Icmpv6Type }
}

fn echo_request(family: Family) -> u8 {
    if family == Family::V4 { ECHO_REQUEST } else { ECHO_REQUEST_V6 }
}

fn ip_kind(family: Family) -> ValueKind {
    if family == Family::V4 { ValueKind::Ipv4 } else { ValueKind::Ipv6 }
}

/// ETH_P_IP and ETH_P_IPV6 of `linux/if_ether.h`.
fn ethertype(family: Family) -> u16 {
    if family == Family::V4 { 0x0800 } else { 0x86dd }
}

/// NFPROTO_IPV4 and NFPROTO_IPV6 of `linux/netfilter.h`.
fn nfproto(family: Family) -> u8 {
    if family == Family::V4 { 2 } else { 10 }
}

fn loopback(family: Family) -> IpAddr {
    if family == Family::V4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

fn loopback_v4() -> IpNetwork {
    const NETWORK: Ipv4Network = Ipv4Network::new_checked(Ipv4Addr::new(127, 0, 0, 0), 8).unwrap();
    NETWORK.into()
}

fn link_local_v6() -> IpNetwork {
    const NETWORK: Ipv6Network = Ipv6Network::new_checked(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10).unwrap();
    NETWORK.into()
}
