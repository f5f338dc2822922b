//! What the guest is told of its network: read off the tap (masquerade) or the pod interface (bridge), never invented.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dhcp::{Lifetime, Prefix, Router, V4Config, V6Config};
use hostnet::facts::{Address, AddressScope, Link, Route, RouteKind, TABLE_MAIN};
use sha2::{Digest, Sha256};
use terms::{IpNetwork, Ipv4Network, Ipv6Network, MacAddr, Mtu};
use wiring::{Binding, Family, GuestSubnet, MASQUERADE_GATEWAY_LINK_LOCAL, VIRTUAL_ROUTER};

use super::verify::{Place, VerifyError};
use super::{ResolvConf, default_route};

/// Leases end with the launcher, which ends with the guest; a day keeps renewals in use.
const LEASE: Lifetime = Lifetime::Seconds(86_400);
/// The longest RFC 4861 §6.2.1 lets a router promise.
const ROUTER_LIFETIME_SECONDS: u16 = 9000;

/// What a NIC's guest is answered; `None` when its network has no addresses to give.
pub(super) fn answers(
    at: &Place<'_>,
    pod: &Link,
    vm: &Link,
    mac: MacAddr,
    mtu: Mtu,
    resolv: &ResolvConf,
) -> Result<Option<dhcp::Config>, VerifyError> {
    let tells_default = |family| default_route::is_told(at.machine, at.index, at.facts, family);
    let (default_v4, default_v6) = (tells_default(Family::V4), tells_default(Family::V6));
    let view = View { addresses: &at.facts.addresses, routes: &at.facts.routes, pod, default_v4, default_v6 };
    let (v4, v6) = match at.nic.binding {
        Binding::Masquerade => masqueraded(at, vm, &view)?,
        Binding::Bridge | Binding::Sriov => (view.v4(at.index), view.v6()),
    };
    if v4.is_none() && v6.is_none() {
        return Ok(None);
    }
    let machine = at.machine;
    let options = &at.nic.dhcp;
    let mut config = dhcp::Config::new(mac, service_mac(&machine.uuid, &at.nic.name));
    config.service_link_local = wiring::service_link_local(mac);
    config.hostname = Some(machine.hostname.clone());
    config.search = resolv.search_with(machine.subdomain.as_deref(), &machine.namespace);
    config.dns.clone_from(&resolv.servers);
    config.ntp.clone_from(&options.ntp_servers);
    config.mtu = Some(mtu);
    config.v4 = v4.map(|v4| V4Config {
        lease: LEASE,
        boot_file: options.boot_file_name.clone(),
        boot_server: options.tftp_server_name.clone(),
        private_options: options.private_options.iter().map(|o| (o.option, o.value.clone().into_bytes())).collect(),
        ..v4
    });
    config.v6 = v6;
    Ok(Some(config))
}

/// Ethernet source of our answers: only the guest sees it, at each start the same.
fn service_mac(uuid: &str, nic: &str) -> MacAddr {
    let digest = Sha256::digest(format!("service of {uuid}/{nic}"));
    let mut bytes = [0; 5];
    bytes.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    MacAddr::local(bytes)
}

/// The gateway's addresses are on the tap; the guest's come next to them. A family the tap lacks is one the pod lacks.
/// Behind a NIC that tells of no default route lie the networks that its pod interface knows a way to.
fn masqueraded(
    at: &Place<'_>,
    vm: &Link,
    view: &View<'_>,
) -> Result<(Option<V4Config>, Option<V6Config>), VerifyError> {
    let held = |address: &&Address| address.link == vm.name && address.scope == AddressScope::Global;
    let held: Vec<IpNetwork> = at.facts.addresses.iter().filter(held).map(|address| address.address).collect();
    let of_family = |wanted: Option<GuestSubnet>| -> Result<Option<GuestSubnet>, VerifyError> {
        let Some(subnet) = wanted else { return Ok(None) };
        match held.iter().find(|address| address.is_ipv4() == subnet.gateway.is_ipv4()) {
            None => Ok(None),
            Some(found) if *found == subnet.gateway => Ok(Some(subnet)),
            Some(found) => Err(at.differs(&vm.name, "gateway address", subnet.gateway.to_string(), found.to_string())),
        }
    };
    let v4 = of_family(GuestSubnet::v4(at.interface.subnet()))?.and_then(|subnet| {
        match (subnet.guest, subnet.gateway.ip()) {
            (IpNetwork::V4(address), IpAddr::V4(gateway)) => {
                let router = view.default_v4.then_some(gateway);
                let behind = if view.default_v4 { Vec::new() } else { view.destinations_v4() };
                let routes = behind.into_iter().map(|to| (to, gateway)).collect();
                Some(V4Config { address, server_id: gateway, router, routes, ..V4Config::default() })
            }
            _ => None,
        }
    });
    let v6 = of_family(GuestSubnet::v6(at.interface.subnet6()))?.and_then(|subnet| match subnet.guest {
        IpNetwork::V6(address) => {
            let network = Ipv6Network::new(address.network(), address.prefix()).ok()?;
            let router = Router::Gateway { link_local: MASQUERADE_GATEWAY_LINK_LOCAL, link_layer: vm.mac };
            let config = v6(address.ip(), router, vec![Prefix { network, on_link: true }]);
            Some(match view.default_v6 {
                true => config,
                false => V6Config { router_lifetime_seconds: 0, routes: view.destinations_v6(), ..config },
            })
        }
        IpNetwork::V4(_) => None,
    });
    if v4.is_none() && v6.is_none() {
        return Err(at.not_wired(format!("{} holds no gateway address", vm.name)));
    }
    Ok((v4, v6))
}

fn v6(address: Ipv6Addr, router: Router, prefixes: Vec<Prefix>) -> V6Config {
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

/// The pod interface's addresses and its part of the main routing table.
struct View<'a> {
    addresses: &'a [Address],
    routes: &'a [Route],
    pod: &'a Link,
    /// Whether this NIC is the one whose guest is told of a default route.
    default_v4: bool,
    default_v6: bool,
}

impl View<'_> {
    fn addresses(&self) -> impl Iterator<Item = IpNetwork> {
        let given = |a: &&Address| a.link == self.pod.name && a.scope == AddressScope::Global && !a.flags.secondary;
        // An address in use before one that is going out of use.
        let mut given: Vec<_> = self.addresses.iter().filter(given).collect();
        given.sort_by_key(|address| address.flags.deprecated);
        given.into_iter().map(|address| address.address)
    }

    /// Its unicast routes, the kernel's choice among equals first.
    fn routes(&self) -> Vec<&Route> {
        let is_ours = |route: &&Route| {
            route.link.as_ref() == Some(&self.pod.name) && route.table == TABLE_MAIN && route.kind == RouteKind::Unicast
        };
        let mut routes: Vec<_> = self.routes.iter().filter(is_ours).collect();
        let is_told = |route: &&Route| {
            !route.is_default() || if route.destination.is_ipv4() { self.default_v4 } else { self.default_v6 }
        };
        routes.retain(is_told);
        routes.sort_by_key(|route| route.metric.unwrap_or_default());
        routes
    }

    /// Where its IPv4 routes lead, each once.
    fn destinations_v4(&self) -> Vec<Ipv4Network> {
        let of_family = |route: &&Route| match route.destination {
            IpNetwork::V4(to) => Some(to),
            IpNetwork::V6(_) => None,
        };
        let mut destinations: Vec<_> = self.routes().iter().filter_map(of_family).collect();
        destinations.sort();
        destinations.dedup();
        destinations
    }

    /// Where its IPv6 routes lead, as many as an advertisement tells.
    fn destinations_v6(&self) -> Vec<Ipv6Network> {
        const MOST: usize = 16;
        let of_family = |route: &&Route| match route.destination {
            IpNetwork::V6(to) if is_global(to.ip()) => Some(to),
            _ => None,
        };
        let mut destinations: Vec<_> = self.routes().iter().filter_map(of_family).collect();
        destinations.sort();
        destinations.dedup();
        destinations.truncate(MOST);
        destinations
    }

    /// The pod's address and table as DHCP says them: the mask covers what the table has as neighbours, all else is
    /// option 121, neighbours before what lies behind them.
    fn v4(&self, index: usize) -> Option<V4Config> {
        let address = self.addresses().find_map(|address| match address {
            IpNetwork::V4(address) => Some(address),
            IpNetwork::V6(_) => None,
        })?;
        let mut routes: Vec<(Ipv4Network, Ipv4Addr)> = Vec::new();
        for route in self.routes() {
            match (route.destination, route.gateway) {
                (IpNetwork::V4(to), Some(IpAddr::V4(gateway))) => routes.push((to, gateway)),
                (IpNetwork::V4(to), None) => routes.push((to, Ipv4Addr::UNSPECIFIED)),
                (IpNetwork::V4(to), Some(IpAddr::V6(gateway))) => {
                    tracing::warn!(%to, %gateway, "a route by an IPv6 gateway cannot be told by DHCP");
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
        self.make_gateways_neighbours(&mut routes, router, address);
        routes.sort_by_key(|(to, gateway)| (!gateway.is_unspecified(), to.prefix() == 0));
        let server_id = router.unwrap_or_else(|| nobody(index));
        Some(V4Config { address, server_id, router, routes, ..V4Config::default() })
    }

    /// A gateway that no on-link route covers is one by `onlink` in the pod's table: the guest needs the route.
    fn make_gateways_neighbours(
        &self,
        routes: &mut Vec<(Ipv4Network, Ipv4Addr)>,
        router: Option<Ipv4Addr>,
        address: Ipv4Network,
    ) {
        let gateways: Vec<_> = routes.iter().map(|(_, gateway)| *gateway).chain(router).collect();
        for gateway in gateways.into_iter().filter(|gateway| !gateway.is_unspecified()) {
            let on_link = |(to, by): &(Ipv4Network, Ipv4Addr)| by.is_unspecified() && to.contains(gateway);
            if !address.contains(gateway) && !routes.iter().any(on_link) {
                routes.push((Ipv4Network::from(gateway), Ipv4Addr::UNSPECIFIED));
            }
        }
    }

    fn v6(&self) -> Option<V6Config> {
        let address = self.addresses().find_map(|address| match address {
            IpNetwork::V6(address) => Some(address.ip()),
            IpNetwork::V4(_) => None,
        })?;
        let routes = self.routes();
        let v6_routes = routes.iter().filter_map(|route| match route.destination {
            IpNetwork::V6(to) => Some((to, route.gateway)),
            IpNetwork::V4(_) => None,
        });
        let mut prefixes = Vec::new();
        let mut router = Router::None;
        for (to, gateway) in v6_routes {
            match gateway {
                None if to.prefix() == 0 || to.prefix() == 128 || !is_global(to.ip()) => {}
                None => prefixes.push(Prefix { network: to, on_link: true }),
                Some(IpAddr::V6(gateway)) if to.prefix() == 0 && router == Router::None => router = router_by(gateway),
                Some(gateway) => {
                    tracing::debug!(%to, %gateway, "an IPv6 route beside the default one is not announced")
                }
            }
        }
        Some(v6(address, router, prefixes))
    }
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
fn nobody(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(169, 254, 75, 10_u8.saturating_add(u8::try_from(index).unwrap_or(u8::MAX)))
}
