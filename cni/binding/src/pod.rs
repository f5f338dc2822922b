//! What a plan reads of the pod: its interface, addresses, routes and MTU.

use hostnet::Facts;
use hostnet::facts::{AddressScope, Link, RouteProtocol};
use terms::{IfName, IpNetwork, Mtu};
use wiring::{Family, Interface};

use super::refusal::Refusal;

/// The pod interface of a request's interface.
pub(crate) fn pod_link<'a>(interface: &Interface, facts: &'a Facts) -> Result<&'a Link, Refusal> {
    facts.link(&interface.pod_interface).ok_or_else(|| Refusal::Absent(interface.pod_interface.clone()))
}

/// The addresses under which others reach the pod by a link.
pub(crate) fn reachable(link: &IfName, family: Family, facts: &Facts) -> Vec<IpNetwork> {
    let ours = |address: &&hostnet::facts::Address| {
        address.scope == AddressScope::Global
            && Family::of(address.address.ip()) == family
            && !is_link_local(address.address)
    };
    facts.addresses_of(link).filter(ours).map(|address| address.address).collect()
}

fn is_link_local(address: IpNetwork) -> bool {
    match address {
        IpNetwork::V4(address) => address.ip().is_link_local(),
        IpNetwork::V6(address) => address.ip().is_unicast_link_local(),
    }
}

/// Links with routes that a router advertisement made.
pub(crate) fn advertised_links(facts: &Facts) -> Vec<IfName> {
    let advertised = facts.routes.iter().filter(|route| route.protocol == RouteProtocol::RouterAdvertisement);
    terms::ordered_once(advertised.filter_map(|route| route.link.clone()))
}

/// RFC 8200 §5; the kernel takes IPv6 off a link below it.
const IPV6_LEAST: u32 = 1280;

/// Whether a tap with this MTU for `link` has IPv6.
pub(crate) fn has_ipv6(link: &Link, mtu: Mtu) -> bool {
    link.addr_gen_mode.is_some() && mtu.value() >= IPV6_LEAST
}

/// The MTU of a NIC's taps: the one asked for, else the pod interface's.
pub(crate) fn mtu(interface: &Interface, link: &Link) -> Result<Mtu, Refusal> {
    let of_link = || {
        let mtu = link.mtu_bytes;
        let refuse = |rule: &str| Refusal::Mtu { nic: interface.name.clone(), mtu, rule: rule.to_owned() };
        Mtu::try_from(u64::from(mtu)).map_err(|error| refuse(error.rule()))
    };
    interface.mtu.map_or_else(of_link, Ok)
}

/// Refuses an MTU that the pod interface does not carry or that is too small for IPv6.
pub(crate) fn refuse_mtu(interface: &Interface, mtu: Mtu, ipv6: bool, facts: &Facts) -> Result<(), Refusal> {
    let refuse = |rule: String| Err(Refusal::Mtu { nic: interface.name.clone(), mtu: mtu.value(), rule });
    let link = pod_link(interface, facts)?;
    if mtu.value() > link.mtu_bytes {
        return refuse(format!("{} carries at most {}", link.name, link.mtu_bytes));
    }
    if ipv6 && mtu.value() < IPV6_LEAST {
        return refuse(format!("the pod has IPv6, which needs at least {IPV6_LEAST}"));
    }
    Ok(())
}
