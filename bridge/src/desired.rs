//! What there must be when a pod has joined the network: pure, from configuration, addresses and names.

use std::net::IpAddr;

use cni_protocol::spec::{self, CniResult};
use hostnet::facts::{Address, AddressFlags, PortVlans, Route, RouteScope, TABLE_MAIN};
use hostnet::op::PortChange;
use terms::{IfName, IpNetwork, MacAddr, VlanId};

use super::conf::Conf;
use super::error::Refusal;
use super::names;
use super::rules::Elements;

/// An attachment as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Desired<'a> {
    pub(crate) conf: &'a Conf,
    /// The port of the bridge.
    pub(crate) host_end: IfName,
    /// The pod's link.
    pub(crate) pod_end: IfName,
    pub(crate) pod_mac: MacAddr,
    /// The pod's addresses.
    pub(crate) addresses: Vec<Address>,
    pub(crate) routes: Vec<Route>,
    /// The gateway's addresses, if the bridge has them.
    pub(crate) gateways: Vec<IpNetwork>,
    /// Without a bridge, what the host's end has: the gateway's addresses, and routes to the pod's.
    pub(crate) cable: Cable,
    pub(crate) elements: Elements,
}

/// The host's end of a cable that is no port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cable {
    pub(crate) addresses: Vec<Address>,
    pub(crate) routes: Vec<Route>,
}

/// Names and addresses of Ethernet that are not the configuration's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) host_end: IfName,
    pub(crate) pod_end: IfName,
    pub(crate) pod_mac: MacAddr,
}

/// VLAN 1, which the kernel puts every new port in.
pub(crate) const DEFAULT_VLAN: u64 = 1;

impl<'a> Desired<'a> {
    /// `result` is IPAM's; its default routes and gateways are completed as the reference plugin does.
    pub(crate) fn of(conf: &'a Conf, ends: Ends, result: &mut CniResult) -> Result<Self, Refusal> {
        let Ends { host_end, pod_end, pod_mac } = ends;
        let mut gateways = complete(conf, result)?;
        let addresses = result.ips.iter().map(|ip| Address {
            flags: AddressFlags {
                nodad: !conf.duplicate_detection,
                no_prefix_route: conf.point_to_point,
                ..permanent()
            },
            ..Address::permanent(pod_end.clone(), ip.address)
        });
        let mut cable = Cable::default();
        let mut routes = Vec::new();
        if conf.point_to_point {
            cable = Cable::of(&host_end, result)?;
            routes = to_gateways(&pod_end, result)?;
            gateways.clear();
        }
        routes.extend(result.routes.iter().map(|route| own_route(route, &pod_end, result)));
        let gateway_link = gateway_link(conf, &host_end)?;
        let masqueraded = result.ips.iter().map(|ip| (gateway_link.clone(), ip.address.ip()));
        Ok(Self {
            conf,
            addresses: addresses.collect(),
            routes,
            gateways,
            cable,
            elements: Elements {
                owner: conf.checks_mac.then(|| (host_end.clone(), pod_mac)),
                masqueraded: masqueraded.filter(|_| conf.masquerade).collect(),
            },
            host_end,
            pod_end,
            pod_mac,
        })
    }

    /// The link that has the gateway's addresses.
    pub(crate) fn gateway_link(&self) -> Result<IfName, Refusal> {
        gateway_link(self.conf, &self.host_end)
    }

    /// Whether the host must forward packets of a family.
    pub(crate) fn forwards(&self, is_ipv4: bool) -> bool {
        let own = self.cable.addresses.iter().map(|held| held.address);
        self.gateways.iter().copied().chain(own).any(|address| address.is_ipv4() == is_ipv4)
    }

    /// The port's settings that are not those of a new one.
    pub(crate) fn port(&self) -> Option<PortChange> {
        let port =
            PortChange { hairpin: self.conf.hairpin.then_some(true), isolated: self.conf.isolated.then_some(true) };
        (port != PortChange::default()).then_some(port)
    }

    /// The port's VLANs besides the one that the kernel puts it in.
    pub(crate) fn vlans(&self) -> Vec<PortVlans> {
        let native = self.conf.vlan.map(|vlan| PortVlans::native(self.host_end.clone(), vlan));
        let tagged = self.conf.trunk.iter().flat_map(|range| without(*range, self.conf.vlan));
        let tagged = tagged.map(|range| PortVlans::tagged(self.host_end.clone(), range));
        native.into_iter().chain(tagged).collect()
    }

    pub(crate) fn has_ipv6(&self) -> bool {
        self.addresses.iter().any(|held| held.address.is_ipv6())
    }

    pub(crate) fn has_ipv4(&self) -> bool {
        self.addresses.iter().any(|held| held.address.is_ipv4())
    }
}

impl Cable {
    fn of(host_end: &IfName, result: &CniResult) -> Result<Self, Refusal> {
        let mut cable = Self::default();
        for ip in &result.ips {
            let gateway = Address::permanent(host_end.clone(), gateway_of(ip)?.into());
            if !cable.addresses.contains(&gateway) {
                cable.addresses.push(gateway);
            }
            cable.routes.push(Route::by(host_end.clone(), ip.address.ip().into()));
        }
        Ok(cable)
    }
}

/// The way to the gateway, and by it to all others of the network.
fn to_gateways(pod_end: &IfName, result: &CniResult) -> Result<Vec<Route>, Refusal> {
    let mut routes: Vec<Route> = Vec::new();
    for ip in &result.ips {
        let gateway = gateway_of(ip)?;
        let network = IpNetwork::new(ip.address.network(), ip.address.prefix());
        let network = network.map_err(|_| Refusal::NoGateway(ip.address))?;
        for route in [Route::by(pod_end.clone(), gateway.into()), Route::via(pod_end.clone(), network, gateway)] {
            if !routes.iter().any(|held| held.is_same_entry(&route)) {
                routes.push(route);
            }
        }
    }
    Ok(routes)
}

fn gateway_of(ip: &spec::IpConfig) -> Result<IpAddr, Refusal> {
    ip.gateway.filter(|gateway| *gateway != ip.address.ip()).ok_or(Refusal::NoGateway(ip.address))
}

fn gateway_link(conf: &Conf, host_end: &IfName) -> Result<IfName, Refusal> {
    if conf.point_to_point {
        return Ok(host_end.clone());
    }
    match conf.vlan {
        Some(vlan) => Ok(names::vlan_gateway(&conf.bridge, vlan)?.0),
        None => Ok(conf.bridge.clone()),
    }
}

/// A range without a VLAN that may be in it.
fn without((first, last): (VlanId, VlanId), vlan: Option<VlanId>) -> Vec<(VlanId, VlanId)> {
    let Some(vlan) = vlan.filter(|vlan| (first..=last).contains(vlan)) else { return vec![(first, last)] };
    let id = |number: u16| VlanId::try_from(u64::from(number)).ok();
    let before = id(vlan.value() - 1).filter(|before| *before >= first).map(|before| (first, before));
    let after = id(vlan.value() + 1).filter(|after| *after <= last).map(|after| (after, last));
    before.into_iter().chain(after).collect()
}

fn permanent() -> AddressFlags {
    AddressFlags { permanent: true, ..AddressFlags::default() }
}

/// Gives each address a gateway and each family a default route, where the bridge is the gateway; returns the gateways'
/// addresses.
fn complete(conf: &Conf, result: &mut CniResult) -> Result<Vec<IpNetwork>, Refusal> {
    let mut gateways = Vec::new();
    for ip in &mut result.ips {
        if ip.gateway.is_none() && conf.is_gateway {
            ip.gateway = Some(first_of(ip.address).ok_or(Refusal::NoGateway(ip.address))?);
        }
        let Some(gateway) = ip.gateway.filter(|_| conf.is_gateway) else { continue };
        let network = IpNetwork::new(gateway, ip.address.prefix()).map_err(|_| Refusal::NoGateway(ip.address))?;
        if !gateways.contains(&network) {
            gateways.push(network);
        }
        let is_default = |route: &spec::Route| {
            route.gw.is_some() && route.dst.prefix() == 0 && route.dst.is_ipv4() == ip.address.is_ipv4()
        };
        if conf.is_default_gateway && !result.routes.iter().any(is_default) {
            let dst = IpNetwork::new(unspecified(gateway), 0).map_err(|_| Refusal::NoGateway(ip.address))?;
            let route =
                spec::Route { dst, gw: Some(gateway), mtu: 0, advmss: 0, priority: 0, table: None, scope: None };
            result.routes.push(route);
        }
    }
    Ok(gateways)
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The first address of a network.
fn first_of(address: IpNetwork) -> Option<IpAddr> {
    let first = match address.network() {
        IpAddr::V4(network) => IpAddr::V4(u32::from(network).checked_add(1)?.into()),
        IpAddr::V6(network) => IpAddr::V6(u128::from(network).checked_add(1)?.into()),
    };
    address.contains(first).then_some(first)
}

/// A route of IPAM's as the kernel takes it: without a next hop of its own, by the gateway of its family.
fn own_route(route: &spec::Route, link: &IfName, result: &CniResult) -> Route {
    let family = |ip: &IpAddr| ip.is_ipv4() == route.dst.is_ipv4();
    let gateway = result.ips.iter().filter_map(|ip| ip.gateway).find(family);
    let on_link = route.scope.is_some_and(|scope| scope != 0);
    let some = |number: u32| Some(number).filter(|number| *number != 0);
    let gateway = route.gw.or(gateway).filter(|_| !on_link);
    let entry = match gateway {
        Some(gateway) => Route::via(link.clone(), route.dst, gateway),
        None => Route::by(link.clone(), route.dst),
    };
    Route {
        metric: some(route.priority),
        mtu_bytes: some(route.mtu),
        advmss_bytes: some(route.advmss),
        table: route.table.filter(|table| *table != 0).unwrap_or(TABLE_MAIN),
        scope: if on_link { RouteScope::Link } else { entry.scope },
        ..entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> (VlanId, VlanId) {
        (first.try_into().unwrap(), last.try_into().unwrap())
    }

    #[test]
    fn the_native_vlan_is_taken_out_of_the_trunk() {
        let vlan = |number: u64| Some(VlanId::try_from(number).unwrap());
        assert_eq!(without(range(10, 20), vlan(5)), [range(10, 20)]);
        assert_eq!(without(range(10, 20), vlan(10)), [range(11, 20)]);
        assert_eq!(without(range(10, 20), vlan(20)), [range(10, 19)]);
        assert_eq!(without(range(10, 20), vlan(12)), [range(10, 11), range(13, 20)]);
        assert_eq!(without(range(1, 1), vlan(1)), []);
    }

    #[test]
    fn a_network_of_one_address_has_none_for_a_gateway() {
        assert_eq!(first_of("10.0.0.5/32".parse().unwrap()), None);
        assert_eq!(first_of("10.0.0.5/24".parse().unwrap()), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(first_of("fd00::5/64".parse().unwrap()), Some("fd00::1".parse().unwrap()));
    }
}
