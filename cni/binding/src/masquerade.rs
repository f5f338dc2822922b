//! Masquerade: a private subnet behind the pod's addresses, for each family that the pod interface has.

use std::net::{IpAddr, Ipv6Addr};

use hostnet::Facts;
use hostnet::facts::{Route, TABLE_MAIN};
use hostnet::sysctl::Sysctl;
use terms::{IfName, IpNetwork, Ipv6Network};
use wiring::{
    Family, GuestSubnet, Interface, MASQUERADE_GATEWAY_LINK_LOCAL, MASQUERADE_GATEWAY_MAC, Mesh, NicKey, Port,
};

use super::pod::{advertised_links, has_ipv6, mtu, pod_link, reachable, refuse_mtu};
use super::refusal::Refusal;
use super::taps::{Nic, Tap};

/// What the rules of one masquerade NIC are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Masquerade {
    pub(crate) pod_interface: IfName,
    pub(crate) tap: IfName,
    pub(crate) service_tap: IfName,
    pub(crate) v4: Option<Side>,
    pub(crate) v6: Option<Side>,
    /// The ports that reach the guest; all if empty.
    pub(crate) ports: Vec<Port>,
    pub(crate) mesh: Option<Mesh>,
}

/// One family of a masquerade NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Side {
    pub(crate) guest: IpAddr,
    pub(crate) gateway: IpNetwork,
    /// The pod interface's addresses, which stand for the guest.
    pub(crate) pod: Vec<IpAddr>,
    /// The networks on the pod interface's link; none lies within another.
    pub(crate) networks: Vec<IpNetwork>,
}

impl Masquerade {
    /// Its families, with the family first.
    pub(crate) fn sides(&self) -> impl Iterator<Item = (Family, &Side)> {
        let v4 = self.v4.iter().map(|side| (Family::V4, side));
        v4.chain(self.v6.iter().map(|side| (Family::V6, side)))
    }
}

/// The taps of a masquerade NIC, and what its rules are made of.
pub(crate) fn of(interface: &Interface, facts: &Facts) -> Result<(Nic, Masquerade), Refusal> {
    let link = pod_link(interface, facts)?;
    let key = NicKey::of(&interface.pod_interface)?;
    let shape = Masquerade {
        pod_interface: link.name.clone(),
        tap: key.masquerade_tap(),
        service_tap: key.service_tap(),
        v4: side(&link.name, Family::V4, GuestSubnet::v4(interface.subnet()), facts),
        v6: side(&link.name, Family::V6, GuestSubnet::v6(interface.subnet6()), facts),
        ports: interface.ports.clone(),
        mesh: interface.mesh,
    };
    if shape.v4.is_none() && shape.v6.is_none() {
        return Err(Refusal::NoAddress(link.name.clone()));
    }
    let mtu = mtu(interface, link)?;
    let has_ipv6 = has_ipv6(link, mtu);
    let bare = Tap {
        name: shape.service_tap.clone(),
        mac: None,
        mtu,
        multi_queue: false,
        has_ipv6,
        addresses: Vec::new(),
        routes: Vec::new(),
    };
    let tap = Tap {
        name: shape.tap.clone(),
        mac: Some(MASQUERADE_GATEWAY_MAC),
        multi_queue: interface.queues.value() > 1,
        addresses: addresses(&shape),
        routes: loopback_route(&shape, facts),
        ..bare.clone()
    };
    let nic =
        Nic { pod_interface: link.name.clone(), pod_mac: None, all_multicast: false, tap, service_tap: Some(bare) };
    Ok((nic, shape))
}

/// Refuses subnets that are in use and an MTU that does not fit. The addresses of the NIC's tap are the gateways of its subnets,
/// and a link-local one.
pub(crate) fn refuse_impossible(interface: &Interface, nic: &Nic, facts: &Facts) -> Result<(), Refusal> {
    let gateways = || nic.tap.addresses.iter().filter(|gateway| gateway.ip() != MASQUERADE_GATEWAY_LINK_LOCAL);
    gateways().try_for_each(|gateway| refuse_overlap(interface, *gateway, &nic.tap.name, facts))?;
    refuse_mtu(interface, nic.tap.mtu, gateways().any(|gateway| gateway.is_ipv6()), facts)
}

/// A family is there if the pod interface has an address of it under which others reach the pod.
fn side(link: &IfName, family: Family, subnet: Option<GuestSubnet>, facts: &Facts) -> Option<Side> {
    let addresses = reachable(link, family, facts);
    let subnet = subnet.filter(|_| !addresses.is_empty())?;
    let pod = addresses.iter().map(IpNetwork::ip).collect();
    Some(Side { guest: subnet.guest.ip(), gateway: subnet.gateway, pod, networks: networks(&addresses) })
}

/// The networks of addresses that are not alone in theirs, each once.
fn networks(addresses: &[IpNetwork]) -> Vec<IpNetwork> {
    let is_alone = |address: &IpNetwork| address.prefix() == if address.is_ipv4() { 32 } else { 128 };
    let mut all = Vec::new();
    for address in addresses.iter().filter(|address| !is_alone(address)) {
        terms::insert_ordered(&mut all, network(*address), |one, other| {
            one.prefix().cmp(&other.prefix()).then_with(|| one.ip().cmp(&other.ip()))
        });
    }
    let mut outermost: Vec<IpNetwork> = Vec::new();
    for network in all {
        if !outermost.iter().any(|outer| outer.contains(network.ip())) {
            outermost.push(network);
        }
    }
    outermost
}

fn addresses(shape: &Masquerade) -> Vec<IpNetwork> {
    let mut addresses: Vec<_> = shape.sides().map(|(_, side)| side.gateway).collect();
    if shape.v6.is_some() {
        // Where the guest's router is: what an RA announces must be link-local.
        addresses.extend(Ipv6Network::new(MASQUERADE_GATEWAY_LINK_LOCAL, 64).map(IpNetwork::V6));
    }
    addresses
}

/// Answers to what the pod's own processes send to ::1 come back by the tap; the kernel takes them only where a route says that
/// ::1 is local there too (IPv4 has `route_localnet` for this). The metric tells several NICs' routes apart.
fn loopback_route(shape: &Masquerade, facts: &Facts) -> Vec<Route> {
    const METRIC: u32 = 2048;
    let Some(position) = facts.link(&shape.pod_interface).map(|link| link.index) else { return Vec::new() };
    let loopback = Ipv6Network::new(Ipv6Addr::LOCALHOST, 128).map(IpNetwork::V6);
    match (&shape.v6, loopback) {
        (Some(_), Ok(loopback)) => vec![Route::local(shape.tap.clone(), loopback, METRIC + position)],
        _ => Vec::new(),
    }
}

/// Refuses a subnet that an address or a route of the pod already leads to: one of the two would be cut off.
fn refuse_overlap(interface: &Interface, gateway: IpNetwork, tap: &IfName, facts: &Facts) -> Result<(), Refusal> {
    let overlap = |what: String| Refusal::Overlap { nic: interface.name.clone(), subnet: network(gateway), what };
    let address = facts.addresses.iter().find(|other| other.link != *tap && overlaps(other.address, gateway));
    if let Some(other) = address {
        return Err(overlap(format!("address {} on {}", other.address, other.link)));
    }
    let leads_there = |route: &&Route| {
        route.table == TABLE_MAIN
            && !route.is_default()
            && route.link.as_ref() != Some(tap)
            && overlaps(route.destination, gateway)
    };
    match facts.routes.iter().find(leads_there) {
        Some(route) => Err(overlap(route.to_string())),
        None => Ok(()),
    }
}

fn overlaps(one: IpNetwork, other: IpNetwork) -> bool {
    match (one, other) {
        (IpNetwork::V4(one), IpNetwork::V4(other)) => one.overlaps(other),
        (IpNetwork::V6(one), IpNetwork::V6(other)) => one.overlaps(other),
        _ => false,
    }
}

fn network(address: IpNetwork) -> IpNetwork {
    IpNetwork::new(address.network(), address.prefix()).unwrap_or(address)
}

/// The settings that masquerading needs, in the order in which they are written.
pub(crate) fn sysctls(nics: &[Masquerade], facts: &Facts) -> Vec<(Sysctl, &'static str)> {
    let mut sysctls = Vec::new();
    if nics.iter().any(|nic| nic.v6.is_some()) {
        // Forwarding deletes the routes that router advertisements made, but for links on which they are to be heard anyway.
        let links = advertised_links(facts);
        sysctls.extend(links.iter().map(|link| (Sysctl::ipv6_conf(link, "accept_ra"), "2")));
        sysctls.push((Sysctl::net("ipv6/conf/all/forwarding"), "1"));
    }
    if nics.iter().any(|nic| nic.v4.is_some()) {
        sysctls.push((Sysctl::net("ipv4/ip_forward"), "1"));
    }
    // What the pod's own processes send to 127.0.0.1 reaches the guest; the guard keeps the guest from doing the reverse.
    let with_v4 = nics.iter().filter(|nic| nic.v4.is_some());
    sysctls.extend(with_v4.map(|nic| (Sysctl::ipv4_conf(&nic.tap, "route_localnet"), "1")));
    sysctls
}
