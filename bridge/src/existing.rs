//! What is on the host already: what a plan builds on, and what stops it.

use hostnet::facts::{Address, AddressScope, Link, LinkKind};
use hostnet::sysctl::Sysctl;
use hostnet::{Ask, Facts};
use terms::{IfName, IpNetwork};

use super::desired::Desired;
use super::error::Refusal;
use super::names;
use super::rules;

/// RFC 8200 §5.
const IPV6_LEAST_MTU: u32 = 1280;

/// Tells whether the kernel has IPv6, in every namespace alike.
pub(crate) fn ipv6() -> Sysctl {
    Sysctl::net("ipv6/conf/default/disable_ipv6")
}

pub(crate) fn forwarding(is_ipv4: bool) -> Sysctl {
    Sysctl::net(if is_ipv4 { "ipv4/ip_forward" } else { "ipv6/conf/all/forwarding" })
}

/// What of the host a plan is made on.
pub(crate) fn host_ask(desired: &Desired<'_>) -> Result<Ask, Refusal> {
    let bridge = (!desired.conf.point_to_point).then(|| desired.conf.bridge.clone());
    let mut named: Vec<_> =
        bridge.into_iter().chain([desired.host_end.clone()]).chain(desired.conf.uplink.clone()).collect();
    if let Some(vlan) = desired.conf.vlan.filter(|_| !desired.gateways.is_empty()) {
        let (link, port) = names::vlan_gateway(&desired.conf.bridge, vlan)?;
        named.extend([link, port]);
    }
    let families = [true, false].into_iter().filter(|family| desired.forwards(*family));
    let sysctls = std::iter::once(ipv6()).chain(families.map(forwarding));
    Ok(Ask {
        addresses: !desired.gateways.is_empty(),
        table_ids: !desired.elements.is_empty(),
        vlans: desired.conf.has_vlans(),
        ..Ask::of_links(named).with_sysctls(sysctls)
    })
}

/// What of the pod a plan is made on.
pub(crate) fn pod_ask(pod_end: &IfName) -> Ask {
    Ask::of_links([pod_end.clone()])
}

/// The tables that hold an attachment's elements, to be read whole.
pub(crate) fn tables_of(desired: &Desired<'_>) -> Vec<hostnet::nft::TableId> {
    let ids = rules::table_ids().into_iter();
    let wanted = desired.elements.tables();
    ids.filter(|id| wanted.iter().any(|table| table.id == *id)).collect()
}

/// The bridge, if it is there and can be used.
pub(crate) fn bridge<'f>(desired: &Desired<'_>, host: &'f Facts) -> Result<Option<&'f Link>, Refusal> {
    let name = &desired.conf.bridge;
    let Some(link) = host.link(name) else { return Ok(None) };
    if link.kind != LinkKind::Bridge {
        return Err(Refusal::NoBridge(name.clone()));
    }
    if desired.conf.has_vlans() {
        match link.bridge.and_then(|settings| settings.vlan_filtering) {
            Some(true) => {}
            Some(false) => return Err(Refusal::NoVlanFiltering(name.clone())),
            None => return Err(Refusal::NoVlans),
        }
    }
    Ok(Some(link))
}

/// Addresses of the gateway's link that are in the place of the gateway's: those to be replaced, or what stops the plan.
pub(crate) fn replaced<'f>(
    desired: &Desired<'_>,
    link: &'f IfName,
    host: &'f Facts,
) -> Result<Vec<&'f Address>, Refusal> {
    let mut replaced = Vec::new();
    for held in host.addresses_of(link).filter(|held| held.scope == AddressScope::Global) {
        if desired.gateways.contains(&held.address) {
            continue;
        }
        let Some(wanted) = desired.gateways.iter().find(|wanted| excludes(**wanted, held.address)) else { continue };
        if !desired.conf.force_address {
            return Err(Refusal::OtherAddress { bridge: link.clone(), found: held.address, wanted: *wanted });
        }
        replaced.push(held);
    }
    Ok(replaced)
}

/// A bridge has one IPv4 address, and IPv6 addresses of networks that do not overlap.
fn excludes(wanted: IpNetwork, held: IpNetwork) -> bool {
    wanted.is_ipv4() == held.is_ipv4() && (wanted.is_ipv4() || wanted.contains(held.ip()) || held.contains(wanted.ip()))
}

/// Refuses what no plan can make.
pub(crate) fn refuse_impossible(desired: &Desired<'_>, host: &Facts) -> Result<(), Refusal> {
    if host.link(&desired.host_end).is_some() {
        return Err(Refusal::HostEnd(desired.host_end.clone()));
    }
    match desired.conf.mtu {
        Some(mtu) if desired.has_ipv6() && mtu.value() < IPV6_LEAST_MTU => Err(Refusal::SmallMtu { mtu }),
        _ => Ok(()),
    }
}
