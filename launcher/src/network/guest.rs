//! What the guest is told of its network: read off the tap (masquerade) or the pod interface (bridge), never invented.

use std::cell::RefCell;
use std::net::IpAddr;

use dhcp::{Prefix, Router, V4Config, V6Config};
use hostnet::facts::{Address, AddressScope, Link};
use sha2::{Digest, Sha256};
use terms::{IpNetwork, Ipv6Network, MacAddr, Mtu};
use wiring::{Binding, Family, GuestSubnet, MASQUERADE_GATEWAY_LINK_LOCAL};

use super::default_route;
use super::place::{Place, VerifyError};
use super::view::{LEASE, View, v6};

/// Least MTU in bytes of a link with IPv6 (RFC 8200 §5).
const IPV6_LEAST_MTU: u32 = 1280;

/// What a NIC's guest gets.
pub(super) struct Answers {
    /// By DHCP and router advertisements, name servers not yet included; `None` when its network has no addresses to give.
    pub(super) config: Option<dhcp::Config>,
    /// The tap's MTU, or that of the pod's routes if it is less.
    pub(super) mtu: Mtu,
    /// What of its network the guest cannot be told.
    pub(super) not_told: Vec<String>,
}

/// Reads what a NIC's guest gets off its pod's links, addresses and routes.
pub(super) fn answers(at: &Place<'_>, pod: &Link, vm: &Link, mac: MacAddr, mtu: Mtu) -> Result<Answers, VerifyError> {
    let tells_default = |family| default_route::is_told(at.interfaces, at.index, at.facts, family);
    let (default_v4, default_v6) = (tells_default(Family::V4), tells_default(Family::V6));
    let view = View {
        addresses: &at.facts.addresses,
        routes: &at.facts.routes,
        pod,
        mark: vm.alias.as_deref().and_then(|alias| alias.parse().ok()),
        default_v4,
        default_v6,
        not_told: RefCell::default(),
    };
    let (v4, v6) = match at.interface.binding {
        Binding::Masquerade => masqueraded(at, vm, &view)?,
        Binding::Bridge if at.interface.without_service => (None, None),
        Binding::Bridge | Binding::Sriov => (view.v4(at.index), view.v6()),
    };
    let mtu = narrowed(mtu, &view, v6.is_some());
    if v4.is_none() && v6.is_none() {
        return Ok(Answers { config: None, mtu, not_told: view.not_told.into_inner() });
    }
    let machine = at.machine;
    let options = &at.nic.dhcp;
    let mut config = dhcp::Config::new(mac, service_mac(&machine.uuid, &at.nic.name));
    config.service_link_local = wiring::service_link_local(mac);
    config.hostname = Some(machine.hostname.clone());
    // On the tap of a masquerade the guest is alone, whatever Ethernet addresses it uses inside.
    config.any_client = at.interface.binding == Binding::Masquerade;
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
    Ok(Answers { config: Some(config), mtu, not_told: view.not_told.into_inner() })
}

/// The MTU for the guest: its pod's routes may carry less than the pod's link.
fn narrowed(of_tap: Mtu, view: &View<'_>, has_ipv6: bool) -> Mtu {
    let Some(of_route) = view.route_mtu_bytes().filter(|mtu| *mtu < of_tap.value()) else { return of_tap };
    let least = if has_ipv6 { IPV6_LEAST_MTU.min(of_tap.value()) } else { 0 };
    if of_route < least {
        view.leave_out(format!("the MTU {of_route} of its routes: IPv6 needs at least {IPV6_LEAST_MTU}"));
    }
    Mtu::try_from(u64::from(of_route.max(least))).unwrap_or(of_tap)
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
                // A lifetime of 0 says that the router is no default router (RFC 4861 §4.2).
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
