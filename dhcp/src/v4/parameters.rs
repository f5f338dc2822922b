//! What a client can ask for by option code, and the order it gets it in.

use std::net::{IpAddr, Ipv4Addr};

use terms::Ipv4Network;

use super::codes;
use crate::config::{Config, V4Config};
use crate::names::{self, Compressed};

/// Sent to a client without a parameter request list, the most important first.
const UNASKED: [u8; 12] = [
    codes::SUBNET_MASK,
    codes::ROUTES,
    codes::ROUTER,
    codes::DNS,
    codes::DOMAIN,
    codes::HOSTNAME,
    codes::MTU,
    codes::BROADCAST,
    codes::SEARCH,
    codes::NTP,
    codes::BOOT_SERVER,
    codes::BOOT_FILE,
];

/// The options for a client with this parameter request list, in its order (RFC 2132 §9.8), classless routes where there are any,
/// and the site's own options, which few clients know to ask for. The mask is always first: every client needs it, and it precedes the router (RFC 2132 §3.3). The search list is
/// returned separately, because it can be shortened.
pub(super) fn requested(
    config: &Config,
    v4: &V4Config,
    request_list: Option<&[u8]>,
) -> (Vec<(u8, Vec<u8>)>, Compressed) {
    let private = v4.private_options.iter().map(|(code, _)| *code);
    let wanted: Vec<u8> = match request_list {
        Some(list) => {
            // Without routes a client reaches no gateway outside its mask, and udhcpc does not ask for them. They are last: what
            // the client asked for is sent first.
            let knows_routes = list.contains(&codes::MICROSOFT_ROUTES);
            let routes = Some(codes::ROUTES).filter(|_| !knows_routes);
            std::iter::once(codes::SUBNET_MASK).chain(list.iter().copied()).chain(routes).chain(private).collect()
        }
        None => UNASKED.into_iter().chain(private).collect(),
    };
    let mut sent = [false; 256];
    let (mut options, mut search) = (Vec::new(), Compressed::default());
    for code in wanted {
        let seen = sent.get_mut(usize::from(code)).is_none_or(|seen| std::mem::replace(seen, true));
        if code == codes::SEARCH {
            search = names::compressed(&config.search);
        } else if let Some(value) = (!seen).then(|| parameter(config, v4, code)).flatten() {
            options.push((code, value));
        }
    }
    (options, search)
}

fn parameter(config: &Config, v4: &V4Config, code: u8) -> Option<Vec<u8>> {
    let private = || v4.private_options.iter().find(|(known, _)| *known == code).map(|(_, value)| value.clone());
    let text = |text: &Option<String>| text.as_ref().map(|text| text.as_bytes().to_vec());
    let value = match code {
        codes::SUBNET_MASK => v4.address.mask().octets().to_vec(),
        codes::ROUTER => v4.router?.octets().to_vec(),
        codes::DNS => addresses(&config.dns),
        codes::HOSTNAME => text(&config.hostname)?,
        codes::DOMAIN => config.domain()?.as_str().as_bytes().to_vec(),
        codes::MTU => u16::try_from(config.mtu?.value()).ok()?.to_be_bytes().to_vec(),
        // A subnet of one or two addresses has no broadcast address (RFC 3021).
        codes::BROADCAST if v4.address.prefix() < 31 => v4.address.broadcast().octets().to_vec(),
        codes::NTP => addresses(&config.ntp),
        codes::BOOT_SERVER => text(&v4.boot_server)?,
        codes::BOOT_FILE => text(&v4.boot_file)?,
        codes::ROUTES => classless_routes(v4),
        224..=254 => match private() {
            None if code == codes::MICROSOFT_ROUTES => classless_routes(v4),
            value => value?,
        },
        _ => private()?,
    };
    (!value.is_empty()).then_some(value)
}

fn addresses(of_both_families: &[IpAddr]) -> Vec<u8> {
    let v4 = of_both_families.iter().filter_map(|address| match address {
        IpAddr::V4(address) => Some(address.octets()),
        IpAddr::V6(_) => None,
    });
    v4.flatten().collect()
}

/// All routes with the default last (RFC 3442), because a client that gets them ignores option 3. Empty when option 3
/// says it all. A gateway outside every on-link network gets a host route of its own first.
fn classless_routes(v4: &V4Config) -> Vec<u8> {
    let on_link = |gateway: Ipv4Addr| {
        let listed = |(network, via): &(Ipv4Network, Ipv4Addr)| via.is_unspecified() && network.contains(gateway);
        v4.address.contains(gateway) || v4.routes.iter().any(listed)
    };
    let mut wire = Vec::new();
    if v4.routes.is_empty() && v4.router.is_none_or(on_link) {
        return wire;
    }
    let mut gateways: Vec<Ipv4Addr> = v4.routes.iter().map(|(_, via)| *via).chain(v4.router).collect();
    gateways.retain(|gateway| !gateway.is_unspecified() && !on_link(*gateway));
    gateways.sort_unstable();
    gateways.dedup();
    for gateway in gateways {
        push_route(&mut wire, Ipv4Network::from(gateway), Ipv4Addr::UNSPECIFIED);
    }
    // On-link networks first: a client that adds routes one by one must reach a gateway before it is told of it.
    let (direct, via): (Vec<_>, Vec<_>) = v4.routes.iter().copied().partition(|(_, via)| via.is_unspecified());
    for (network, gateway) in direct.into_iter().chain(via).filter(|(network, _)| network.prefix() > 0) {
        push_route(&mut wire, network, gateway);
    }
    let default = v4.routes.iter().find(|(network, _)| network.prefix() == 0).map(|(_, via)| *via);
    if let Some(gateway) = v4.router.or(default) {
        let everything = Ipv4Network::new_checked(Ipv4Addr::UNSPECIFIED, 0);
        everything.into_iter().for_each(|network| push_route(&mut wire, network, gateway));
    }
    wire
}

/// Prefix length, the significant bytes of the network, the gateway.
fn push_route(wire: &mut Vec<u8>, network: Ipv4Network, gateway: Ipv4Addr) {
    wire.push(network.prefix());
    wire.extend(network.network().octets().into_iter().take(usize::from(network.prefix().div_ceil(8))));
    wire.extend(gateway.octets());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(address: &str, router: Option<&str>, routes: &[(&str, &str)]) -> V4Config {
        let route = |(network, via): &(&str, &str)| (network.parse().unwrap(), via.parse().unwrap());
        V4Config {
            address: address.parse().unwrap(),
            router: router.map(|router| router.parse().unwrap()),
            routes: routes.iter().map(route).collect(),
            ..V4Config::default()
        }
    }

    #[test]
    fn a_gateway_in_the_subnet_needs_no_classless_route() {
        assert!(classless_routes(&config("10.0.2.2/24", Some("10.0.2.1"), &[])).is_empty());
    }

    #[test]
    fn a_gateway_outside_the_subnet_comes_with_its_own_host_route() {
        let wire = classless_routes(&config("10.244.1.7/32", Some("169.254.1.1"), &[]));
        assert_eq!(wire, [32, 169, 254, 1, 1, 0, 0, 0, 0, 0, 169, 254, 1, 1]);
    }

    #[test]
    fn on_link_routes_come_first_and_the_default_last() {
        let routes = [("10.9.0.0/16", "10.1.0.1"), ("10.1.0.1/32", "0.0.0.0")];
        let wire = classless_routes(&config("10.1.0.9/32", Some("10.1.0.1"), &routes));
        let expected = [&[32, 10, 1, 0, 1, 0, 0, 0, 0][..], &[16, 10, 9, 10, 1, 0, 1], &[0, 10, 1, 0, 1]];
        assert_eq!(wire, expected.concat());
    }
}
