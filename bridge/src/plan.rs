//! The steps that make an attachment: pure, from what there must be and what is there.

use hostnet::facts::{AddrGenMode, Address, PortVlans, RouteProtocol};
use hostnet::op::{LinkChange, Master, NewLink, NewLinkKind, PeerSettings};
use hostnet::sysctl::Sysctl;
use hostnet::{Facts, Op, PairFacts, PairPlan, Step};
use terms::{IfName, MacAddr, VlanId};

use super::desired::{DEFAULT_VLAN, Desired};
use super::error::Refusal;
use super::{existing, names, rules, uplink};

/// Addresses of links on the host that are made. Ours from the beginning: udev and the kernel leave them alone, and a bridge
/// keeps its address whatever ports come and go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewMacs {
    pub(crate) bridge: MacAddr,
    pub(crate) host_end: MacAddr,
    pub(crate) gateway: MacAddr,
}

/// IPv6's least MTU, below which the kernel takes IPv6 off a link.
const IPV6_LEAST_MTU: u32 = 1280;

/// What the network's attachments share and is not there yet: the bridge, the gateway, the tables. It outlives them all.
pub(crate) fn shared(desired: &Desired<'_>, host: &Facts, macs: &NewMacs) -> Result<Vec<Op>, Refusal> {
    existing::refuse_impossible(desired, host)?;
    let mut ops = Vec::new();
    if !desired.conf.point_to_point {
        ops.extend(bridge(desired, host, macs)?);
        ops.extend(uplink::joining(desired, host)?);
        ops.extend(gateway(desired, host, macs)?);
    }
    ops.extend(forwarding(desired, host));
    ops.extend(desired.elements.missing_tables(host));
    Ok(ops)
}

/// What is the attachment's alone, on a host that has what is shared.
///
/// Host first, then the pod. The nft elements come last: a transaction is atomic, so what fails before needs no undoing of it.
pub(crate) fn own(desired: &Desired<'_>, facts: &PairFacts, macs: &NewMacs) -> PairPlan {
    let host = &facts.host;
    let mut steps: Vec<Step> = port(desired, host, macs).into_iter().map(Step::host).collect();
    steps.extend(pod(desired, host).into_iter().map(Step::pod));
    steps.extend(desired.elements.addition().map(Step::host));
    PairPlan { steps }
}

fn bridge(desired: &Desired<'_>, host: &Facts, macs: &NewMacs) -> Result<Vec<Op>, Refusal> {
    let conf = desired.conf;
    let name = conf.bridge.clone();
    let settings = Some(conf.settings.clone()).filter(|settings| *settings != Default::default());
    let Some(link) = existing::bridge(desired, host)? else {
        let set = LinkChange {
            mtu: conf.mtu,
            mac: Some(macs.bridge),
            promiscuous: conf.promiscuous.then_some(true),
            bridge: settings,
            ..LinkChange::default()
        };
        let mut ops = vec![Op::CreateLink(NewLink { name: name.clone(), kind: NewLinkKind::Bridge, set })];
        ops.extend(refuse_routes(desired, host));
        ops.push(Op::SetLink { link: name, set: LinkChange::up() });
        return Ok(ops);
    };
    let missing = settings.map(|mut wanted| {
        let found = link.bridge.unwrap_or_default();
        wanted.vlan_filtering = None;
        wanted.multicast_snooping = wanted.multicast_snooping.filter(|value| *value != found.multicast_snooping);
        wanted.multicast_querier = wanted.multicast_querier.filter(|value| *value != found.multicast_querier);
        wanted.group_fwd_mask = wanted.group_fwd_mask.filter(|value| *value != found.group_fwd_mask);
        wanted.ageing_seconds = wanted.ageing_seconds.filter(|value| *value != found.ageing_seconds);
        wanted
    });
    let set = LinkChange {
        up: (!link.up).then_some(true),
        promiscuous: (conf.promiscuous && !link.promiscuous).then_some(true),
        bridge: missing.filter(|missing| *missing != Default::default()),
        ..LinkChange::default()
    };
    // One that is down may be what a call left that was killed.
    let mut ops: Vec<_> = refuse_routes(desired, host).into_iter().filter(|_| !link.up).collect();
    ops.extend((!set.is_empty()).then_some(Op::SetLink { link: name, set }));
    Ok(ops)
}

/// The host's routes are not the network's business: what the bridge is told before it is up.
fn refuse_routes(desired: &Desired<'_>, host: &Facts) -> Option<Op> {
    let carries = has_ipv6(host) && desired.conf.mtu.is_none_or(|mtu| mtu.value() >= IPV6_LEAST_MTU);
    let key = Sysctl::ipv6_conf(&desired.conf.bridge, "accept_ra");
    carries.then(|| Op::WriteSysctl { key, value: "0".to_owned() })
}

/// The gateway's addresses on the bridge, or on a link of the VLAN.
fn gateway(desired: &Desired<'_>, host: &Facts, macs: &NewMacs) -> Result<Vec<Op>, Refusal> {
    if desired.gateways.is_empty() {
        return Ok(Vec::new());
    }
    let link = desired.gateway_link()?;
    let mut ops = match desired.conf.vlan {
        Some(vlan) => vlan_gateway(desired, vlan, host, macs)?,
        None => Vec::new(),
    };
    let replaced = existing::replaced(desired, &link, host)?;
    ops.extend(replaced.iter().map(|held| Op::DeleteAddress { link: link.clone(), address: held.address }));
    let held = |wanted| host.addresses_of(&link).any(|held| held.address == wanted);
    let missing = desired.gateways.iter().filter(|wanted| !held(**wanted));
    ops.extend(missing.map(|wanted| Op::AddAddress(Address::permanent(link.clone(), *wanted))));
    Ok(ops)
}

fn forwarding(desired: &Desired<'_>, host: &Facts) -> Vec<Op> {
    let mut ops = Vec::new();
    for is_ipv4 in [true, false] {
        let key = existing::forwarding(is_ipv4);
        let is_off = host.sysctl(&key).is_some_and(|value| value != "1");
        if is_off && desired.forwards(is_ipv4) {
            if !is_ipv4 {
                // Forwarding deletes routes of router advertisements, unless these are accepted in spite of it.
                ops.extend(
                    advertised_links(host).into_iter().map(|link| Op::WriteSysctl {
                        key: Sysctl::ipv6_conf(&link, "accept_ra"),
                        value: "2".to_owned(),
                    }),
                );
            }
            ops.push(Op::WriteSysctl { key, value: "1".to_owned() });
        }
    }
    ops
}

/// Links with routes that a router advertisement made.
pub(crate) fn advertised_links(host: &Facts) -> Vec<IfName> {
    let advertised = host.routes.iter().filter(|route| route.protocol == RouteProtocol::RouterAdvertisement);
    terms::ordered_once(advertised.filter_map(|route| route.link.clone()))
}

/// A cable from the host to the VLAN: the bridge's own address would be in all VLANs.
fn vlan_gateway(desired: &Desired<'_>, vlan: VlanId, host: &Facts, macs: &NewMacs) -> Result<Vec<Op>, Refusal> {
    let bridge = &desired.conf.bridge;
    let (link, port) = names::vlan_gateway(bridge, vlan)?;
    let end = host.link(&port);
    let is_joined = end.is_some_and(|end| end.master.as_ref() == Some(bridge));
    let mut ops = Vec::new();
    match host.link(&link) {
        None => {
            let set = LinkChange { mac: Some(macs.gateway), mtu: desired.conf.mtu, ..LinkChange::up() };
            let kind = NewLinkKind::Veth { peer: port.clone() };
            ops.push(Op::CreateLink(NewLink { name: link, kind, set }));
        }
        Some(near) => {
            let is_free = end.is_some_and(|end| end.master.is_none() && near.peer_index == Some(end.index));
            if !is_joined && !is_free {
                return Err(Refusal::VlanGateway { link, bridge: bridge.clone() });
            }
        }
    }
    if !is_joined {
        let join = LinkChange { mtu: desired.conf.mtu, master: Some(Master::Link(bridge.clone())), ..LinkChange::up() };
        ops.push(Op::SetLink { link: port.clone(), set: join });
        ops.extend(leave_default_vlan(desired, &port));
    }
    // Last: what has it is complete.
    let native = PortVlans::native(port, vlan);
    if !host.vlans.iter().any(|held| held.pvid && held.overlaps(&native)) {
        ops.push(Op::AddVlans(native));
    }
    Ok(ops)
}

/// The pod's cable, its end on the host a port of the bridge, or with addresses of its own.
fn port(desired: &Desired<'_>, host: &Facts, macs: &NewMacs) -> Vec<Op> {
    let conf = desired.conf;
    let has_ipv6 = has_ipv6(host) && conf.mtu.is_none_or(|mtu| mtu.value() >= IPV6_LEAST_MTU);
    let peer = PeerSettings { mac: Some(desired.pod_mac), mtu: conf.mtu };
    let set = LinkChange {
        mtu: conf.mtu,
        mac: Some(macs.host_end),
        group: conf.checks_mac.then_some(rules::CHECKED_GROUP),
        // A port has no addresses and solicits no router.
        addr_gen_mode: (has_ipv6 && !conf.point_to_point).then_some(AddrGenMode::None),
        master: (!conf.point_to_point).then(|| Master::Link(conf.bridge.clone())),
        port: desired.port(),
        ..LinkChange::up()
    };
    let kind = NewLinkKind::VethAcross { peer: desired.pod_end.clone(), set: peer };
    let solicits = conf.point_to_point && has_ipv6 && desired.has_ipv6();
    let set = LinkChange { up: set.up.filter(|_| !solicits), ..set };
    let mut ops = vec![Op::CreateLink(NewLink { name: desired.host_end.clone(), kind, set })];
    if solicits {
        // No other station is on the cable. While the link-local address is checked, the host would not look for the pod to pass
        // packets on to it.
        let key = Sysctl::ipv6_conf(&desired.host_end, "accept_dad");
        ops.push(Op::WriteSysctl { key, value: "0".to_owned() });
        ops.push(Op::SetLink { link: desired.host_end.clone(), set: LinkChange::up() });
    }
    if conf.has_vlans() {
        ops.extend(leave_default_vlan(desired, &desired.host_end));
    }
    ops.extend(desired.vlans().into_iter().map(Op::AddVlans));
    ops.extend(desired.cable.addresses.iter().cloned().map(Op::AddAddress));
    ops.extend(desired.cable.routes.iter().cloned().map(Op::AddRoute));
    ops
}

/// The kernel puts every port in VLAN 1. One that the plan asks for is not left.
fn leave_default_vlan(desired: &Desired<'_>, port: &IfName) -> Option<Op> {
    let vlan = VlanId::try_from(DEFAULT_VLAN).ok()?;
    (!desired.conf.keeps_default_vlan).then(|| Op::DeleteVlans(PortVlans::tagged(port.clone(), (vlan, vlan))))
}

fn pod(desired: &Desired<'_>, host: &Facts) -> Vec<Op> {
    if desired.conf.leaves_down {
        return Vec::new();
    }
    let link = &desired.pod_end;
    let write = |key: Sysctl, value: &str| Op::WriteSysctl { key, value: value.to_owned() };
    let mut ops = Vec::new();
    if desired.has_ipv4() {
        // The network learns where the address is now.
        ops.push(write(Sysctl::ipv4_conf(link, "arp_notify"), "1"));
    }
    if desired.has_ipv6() {
        ops.push(write(Sysctl::ipv6_conf(link, "disable_ipv6"), "0"));
    }
    if !desired.addresses.is_empty() && has_ipv6(host) {
        if desired.conf.duplicate_detection {
            ops.push(write(Sysctl::ipv6_conf(link, "enhanced_dad"), "1"));
        }
        let detects = if desired.conf.duplicate_detection { "1" } else { "0" };
        ops.push(write(Sysctl::ipv6_conf(link, "accept_dad"), detects));
    }
    ops.push(Op::SetLink { link: link.clone(), set: LinkChange::up() });
    ops.extend(desired.addresses.iter().cloned().map(Op::AddAddress));
    ops.extend(desired.routes.iter().cloned().map(Op::AddRoute));
    ops
}

fn has_ipv6(host: &Facts) -> bool {
    host.sysctl(&existing::ipv6()).is_some()
}
