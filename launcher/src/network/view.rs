//! What a pod interface tells of its network: its addresses and its part of the main routing table.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dhcp::{Lifetime, Prefix, Router, V4Config, V6Config};
use hostnet::facts::{Address, AddressScope, Link, Route, RouteKind, TABLE_MAIN};
use terms::{IpNetwork, Ipv4Network, Ipv6Network};
use wiring::{Family, Mark, VIRTUAL_ROUTER};

/// Leases end with the launcher, which ends with the guest; a day keeps renewals in use.
pub(super) const LEASE: Lifetime = Lifetime::Seconds(86_400);
/// The longest RFC 4861 §6.2.1 lets a router promise.
const ROUTER_LIFETIME_SECONDS: u16 = 9000;

/// Bounds of the DHCP engine: beyond them a configuration is refused.
const MOST_V4_ROUTES: usize = 256;
const MOST_V6_ROUTES: usize = 16;
const MOST_PREFIXES: usize = 16;

/// The pod interface's addresses and its part of the main routing table.
pub(super) struct View<'a> {
    pub(super) addresses: &'a [Address],
    pub(super) routes: &'a [Route],
    pub(super) pod: &'a Link,
    /// The mark of the VM's tap, which has the guest's address where there was a choice.
    pub(super) mark: Option<Mark>,
    /// Whether this NIC is the one whose guest is told of a default route.
    pub(super) default_v4: bool,
    pub(super) default_v6: bool,
    /// What the guest is not told, in words.
    pub(super) not_told: RefCell<Vec<String>>,
}

impl View<'_> {
    pub(super) fn leave_out(&self, what: String) {
        self.not_told.borrow_mut().push(what);
    }

    fn is_default_told(&self, family: Family) -> bool {
        match family {
            Family::V4 => self.default_v4,
            Family::V6 => self.default_v6,
        }
    }

    /// The guest's address: the plugin's choice if it had one, else the pod interface's first. The others are left out.
    fn address(&self, family: Family) -> Option<IpNetwork> {
        let is_held = |held: &&Address| {
            let address = held.address.ip();
            let is_link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
            held.link == self.pod.name
                && held.scope == AddressScope::Global
                && Family::of(address) == family
                && !is_link_local
        };
        let mut held: Vec<_> = self.addresses.iter().filter(is_held).collect();
        let chosen = self.mark.as_ref().and_then(|mark| mark.address(family));
        // An address in use comes before one that is going out of use.
        held.sort_by_key(|held| (Some(held.address.ip()) != chosen, held.flags.secondary, held.flags.deprecated));
        let mut held = held.into_iter().map(|held| held.address);
        let address = held.next()?;
        let others: Vec<_> = held.map(|other| other.ip().to_string()).collect();
        if !others.is_empty() {
            let pod = &self.pod.name;
            self.leave_out(format!(
                "{pod} has several addresses and the guest gets {}; nothing answers at {}",
                address.ip(),
                others.join(", ")
            ));
        }
        Some(address)
    }

    /// Its unicast routes, the kernel's choice among equals first.
    fn all_routes(&self) -> Vec<&Route> {
        let is_ours = |route: &&Route| {
            route.link.as_ref() == Some(&self.pod.name) && route.table == TABLE_MAIN && route.kind == RouteKind::Unicast
        };
        let mut routes: Vec<_> = self.routes.iter().filter(is_ours).collect();
        routes.sort_by_key(|route| route.metric.unwrap_or_default());
        routes
    }

    /// Those that the guest is told of.
    fn routes(&self) -> Vec<&Route> {
        let mut routes = self.all_routes();
        let family = |route: &Route| if route.destination.is_ipv4() { Family::V4 } else { Family::V6 };
        routes.retain(|route| !route.is_default() || self.is_default_told(family(route)));
        routes
    }

    /// The least MTU of the interface's default routes; without one, of its routes. A network whose tunnels are narrower than
    /// its devices says so by its routes.
    pub(super) fn route_mtu_bytes(&self) -> Option<u32> {
        let mut routes = self.all_routes();
        if routes.iter().any(|route| route.is_default()) {
            routes.retain(|route| route.is_default());
        }
        routes.iter().filter_map(|route| route.mtu_bytes).filter(|mtu| *mtu > 0).min()
    }

    /// Where its IPv4 routes lead, each once.
    pub(super) fn destinations_v4(&self) -> Vec<Ipv4Network> {
        let of_family = |route: &&Route| match route.destination {
            IpNetwork::V4(to) => Some(to),
            IpNetwork::V6(_) => None,
        };
        let mut destinations: Vec<_> = self.routes().iter().filter_map(of_family).collect();
        destinations.sort();
        destinations.dedup();
        self.at_most(MOST_V4_ROUTES, &mut destinations, |to| format!("the route to {to}"));
        destinations
    }

    /// Where its IPv6 routes lead, as many as an advertisement holds.
    pub(super) fn destinations_v6(&self) -> Vec<Ipv6Network> {
        let of_family = |route: &&Route| match route.destination {
            IpNetwork::V6(to) if is_global(to.ip()) => Some(to),
            _ => None,
        };
        let mut destinations: Vec<_> = self.routes().iter().filter_map(of_family).collect();
        destinations.sort();
        destinations.dedup();
        self.at_most(MOST_V6_ROUTES, &mut destinations, |to| format!("the route to {to}"));
        destinations
    }

    fn at_most<T>(&self, most: usize, list: &mut Vec<T>, name: impl Fn(&T) -> String) {
        let surplus = list.split_off(list.len().min(most));
        if let Some(first) = surplus.first() {
            let (name, more) = (name(first), surplus.len() - 1);
            self.leave_out(format!("{name} and {more} more: at most {most} can be announced"));
        }
    }

    /// The pod's address and table as DHCP says them: the mask covers what the table has as neighbours, all else is
    /// option 121, neighbours before what lies behind them.
    pub(super) fn v4(&self, index: usize) -> Option<V4Config> {
        let IpNetwork::V4(address) = self.address(Family::V4)? else { return None };
        let mut routes: Vec<(Ipv4Network, Ipv4Addr)> = Vec::new();
        for route in self.routes() {
            match (route.destination, route.gateway) {
                (IpNetwork::V4(to), Some(IpAddr::V4(gateway))) => routes.push((to, gateway)),
                (IpNetwork::V4(to), None) => routes.push((to, Ipv4Addr::UNSPECIFIED)),
                (IpNetwork::V4(to), Some(IpAddr::V6(gateway))) => {
                    self.leave_out(format!("the route to {to} by {gateway}: DHCPv4 has no IPv6 gateways"));
                }
                (IpNetwork::V6(_), _) => {}
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        routes.retain(|(to, _)| seen.insert(*to));
        let subnet = Ipv4Network::new(address.network(), address.prefix()).ok()?;
        let connected = (subnet, Ipv4Addr::UNSPECIFIED);
        let has_subnet = routes.contains(&connected);
        routes.retain(|route| *route != connected);
        let prefix = if has_subnet { address.prefix() } else { 32 };
        let address = Ipv4Network::new(address.ip(), prefix).ok()?;
        let default = routes.iter().position(|(to, gateway)| to.prefix() == 0 && !gateway.is_unspecified());
        let router = default.map(|at| routes.remove(at).1);
        make_gateways_neighbours(&mut routes, router, address);
        routes.sort_by_key(|(to, gateway)| (!gateway.is_unspecified(), to.prefix() == 0));
        self.at_most(MOST_V4_ROUTES, &mut routes, |(to, _)| format!("the route to {to}"));
        let server_id = router.unwrap_or_else(|| server_without_gateway(index));
        Some(V4Config { address, server_id, router, routes, ..V4Config::default() })
    }

    /// The pod's address and table as router advertisements say them. An advertisement speaks for one router: that of the
    /// default route, else the gateway of most routes. Networks behind it that no default route covers are announced as RFC 4191
    /// has it; routes by other gateways are left out.
    pub(super) fn v6(&self) -> Option<V6Config> {
        let IpNetwork::V6(address) = self.address(Family::V6)? else { return None };
        let address = address.ip();
        let (on_link, behind) = self.v6_routes();
        let default = behind.iter().find(|(to, _)| to.prefix() == 0).map(|(_, gateway)| *gateway);
        let next = default.or_else(|| most_common(behind.iter().map(|(_, gateway)| *gateway)));
        let mut routes = Vec::new();
        for (to, gateway) in behind.iter().filter(|(to, _)| to.prefix() > 0) {
            match next {
                Some(next) if next == *gateway && default.is_none() => routes.push(*to),
                Some(next) if next != *gateway => {
                    self.leave_out(format!(
                        "the route to {to} by {gateway}: advertisements speak for one router, {next}"
                    ));
                }
                _ => {}
            }
        }
        // A route to the guest's own address or to a gateway alone is no network to announce.
        let is_plain = |to: &Ipv6Network| {
            to.prefix() < 128 || (to.ip() != address && !behind.iter().any(|(_, gateway)| *gateway == to.ip()))
        };
        let mut prefixes: Vec<_> = on_link.into_iter().filter(is_plain).collect();
        self.at_most(MOST_PREFIXES, &mut prefixes, |to| format!("the network {to}"));
        self.at_most(MOST_V6_ROUTES, &mut routes, |to| format!("the route to {to}"));
        let prefixes = prefixes.into_iter().map(|network| Prefix { network, on_link: true }).collect();
        let config = v6(address, next.map_or(Router::None, router_by), prefixes);
        Some(match default {
            Some(_) => config,
            // A lifetime of 0 says that the router is no default router (RFC 4861 §4.2).
            None => V6Config { router_lifetime_seconds: 0, routes, ..config },
        })
    }

    /// Networks on the link, and networks with the gateway they lie behind; each destination once.
    fn v6_routes(&self) -> (Vec<Ipv6Network>, Vec<(Ipv6Network, Ipv6Addr)>) {
        let (mut on_link, mut behind) = (Vec::new(), Vec::new());
        let mut seen = std::collections::BTreeSet::new();
        for route in self.routes() {
            let IpNetwork::V6(to) = route.destination else { continue };
            if !is_global(to.ip()) || !seen.insert(to) {
                continue;
            }
            match route.gateway {
                Some(IpAddr::V6(gateway)) => behind.push((to, gateway)),
                None if to.prefix() > 0 => on_link.push(to),
                _ => self.leave_out(format!("the route to {to}: it has no IPv6 gateway that could be announced")),
            }
        }
        (on_link, behind)
    }
}

/// A gateway that no on-link route covers is one by `onlink` in the pod's table: the guest needs the route.
fn make_gateways_neighbours(routes: &mut Vec<(Ipv4Network, Ipv4Addr)>, router: Option<Ipv4Addr>, address: Ipv4Network) {
    let gateways: Vec<_> = routes.iter().map(|(_, gateway)| *gateway).chain(router).collect();
    for gateway in gateways.into_iter().filter(|gateway| !gateway.is_unspecified()) {
        let on_link = |(to, by): &(Ipv4Network, Ipv4Addr)| by.is_unspecified() && to.contains(gateway);
        if !address.contains(gateway) && !routes.iter().any(on_link) {
            routes.push((Ipv4Network::from(gateway), Ipv4Addr::UNSPECIFIED));
        }
    }
}

/// The gateway that comes most often, the first among equals.
fn most_common(gateways: impl Iterator<Item = Ipv6Addr>) -> Option<Ipv6Addr> {
    let gateways: Vec<_> = gateways.collect();
    let count = |gateway: &Ipv6Addr| gateways.iter().filter(|other| *other == gateway).count();
    // `max_by_key` takes the last among equals.
    gateways.iter().rev().copied().max_by_key(count)
}

fn router_by(gateway: Ipv6Addr) -> Router {
    if gateway.is_unicast_link_local() {
        Router::Gateway { link_local: gateway, link_layer: None }
    } else {
        Router::Virtual { link_local: VIRTUAL_ROUTER, gateway }
    }
}

fn is_global(address: Ipv6Addr) -> bool {
    !address.is_unicast_link_local() && !address.is_multicast()
}

/// A server identifier where there is no gateway, as KubeVirt chooses it: 169.254.75.1 and the NIC's number.
fn server_without_gateway(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(169, 254, 75, 10_u8.saturating_add(u8::try_from(index).unwrap_or(u8::MAX)))
}

pub(super) fn v6(address: Ipv6Addr, router: Router, prefixes: Vec<Prefix>) -> V6Config {
    let (preferred, valid, boot_file_url, routes) = (LEASE, LEASE, None, Vec::new());
    V6Config {
        address,
        preferred,
        valid,
        router,
        router_lifetime_seconds: ROUTER_LIFETIME_SECONDS,
        prefixes,
        routes,
        boot_file_url,
    }
}
