//! Bridge binding: the pod interface's frames go to the guest and the guest's to it, without a bridge.
//!
//! The guest takes the pod interface's Ethernet and IP addresses; the namespace keeps them for readers and is silent.
//! What a guest can send: any frame, from any address, but for what it asks its DHCP server and router; the network behind
//! the pod interface sees it as it would see a pod with CAP_NET_RAW. Filtering sources is the network's choice.

use std::net::{IpAddr, Ipv6Addr};

use hostnet::Facts;
use hostnet::facts::LinkKind;
use terms::IfName;
use wiring::{Family, Interface, NicKey, service_link_local};

use super::pod::{has_ipv6, mtu, pod_link, reachable, refuse_mtu};
use super::refusal::Refusal;
use super::taps::{Nic, Tap};

/// What the rules of one bridge-bound NIC are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bridge {
    pub(crate) pod_interface: IfName,
    pub(crate) tap: IfName,
    /// For a NIC with addresses, whose guest is told of them.
    pub(crate) service: Option<Service>,
}

/// The launcher's part in a bridge-bound NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) tap: IfName,
    /// From where the launcher asks the pod network for the gateway.
    pub(crate) link_local: Ipv6Addr,
    pub(crate) v4: bool,
    pub(crate) v6: bool,
    /// The next hops that no router advertisement can announce; the launcher resolves them and plays the router.
    pub(crate) global_gateways: Vec<Ipv6Addr>,
}

/// The taps of a bridge-bound NIC, and what its rules are made of.
pub(crate) fn of(interface: &Interface, facts: &Facts) -> Result<(Nic, Bridge), Refusal> {
    let link = pod_link(interface, facts)?;
    let key = NicKey::of(&interface.pod_interface)?;
    let current = link.mac.ok_or_else(|| Refusal::NotEthernet(link.name.clone()))?;
    let has = |family| !reachable(&link.name, family, facts).is_empty();
    let (v4, v6) = (has(Family::V4), has(Family::V6));
    let mtu = mtu(interface, link)?;
    let tap = Tap {
        name: key.bridge_tap(),
        mac: None,
        mtu,
        multi_queue: interface.queues.value() > 1,
        has_ipv6: has_ipv6(link, mtu),
        addresses: Vec::new(),
        routes: Vec::new(),
    };
    // Without an address on the pod interface there is no lease to answer with, and no service tap.
    let serves = (v4 || v6) && !interface.without_service;
    let service = serves.then(|| Service {
        tap: key.service_tap(),
        link_local: service_link_local(interface.mac.unwrap_or(current)),
        v4,
        v6,
        global_gateways: global_gateways(&link.name, facts),
    });
    let service_tap =
        service.as_ref().map(|service| Tap { name: service.tap.clone(), multi_queue: false, ..tap.clone() });
    let shape = Bridge { pod_interface: link.name.clone(), tap: tap.name.clone(), service };
    let nic = Nic {
        pod_interface: link.name.clone(),
        pod_mac: interface.mac,
        all_multicast: sifts_multicast(&link.kind),
        tap,
        service_tap,
    };
    Ok((nic, shape))
}

/// Whether a link passes on only the multicast groups that its own namespace is in, which are not the guest's: children of
/// other links do, and hardware. A cable passes on everything.
fn sifts_multicast(kind: &LinkKind) -> bool {
    !matches!(kind, LinkKind::Veth)
}

/// Refuses an MTU that does not fit.
pub(crate) fn refuse_impossible(interface: &Interface, nic: &Nic, facts: &Facts) -> Result<(), Refusal> {
    let has_ipv6 = !reachable(&nic.pod_interface, Family::V6, facts).is_empty();
    refuse_mtu(interface, nic.tap.mtu, has_ipv6, facts)
}

fn global_gateways(link: &IfName, facts: &Facts) -> Vec<Ipv6Addr> {
    let next_hops = facts.routes_of(link).filter_map(|route| route.gateway);
    terms::ordered_once(next_hops.filter_map(|gateway| match gateway {
        IpAddr::V6(gateway) if !gateway.is_unicast_link_local() => Some(gateway),
        _ => None,
    }))
}
