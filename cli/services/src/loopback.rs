//! Node ports on the host's loopback: the routes and settings that the kernel needs to accept the answers.
//!
//! A connection to 127.0.0.1 or ::1 leaves by a VM's link once it is translated, and its answers arrive there for a loopback
//! address. IPv4 takes them with `route_localnet`; IPv6 has no such setting and takes them where ::1 is local by that link.

use std::collections::BTreeSet;

use hostnet::facts::{AddressScope, Facts, Link, LinkKind, Route, RouteKind, TABLE_LOCAL};
use hostnet::op::Op;
use hostnet::sysctl::Sysctl;
use terms::{IfName, IpNetwork};

/// The kernel's own entry has metric 0. Ours differ from link to link, or one would replace the other.
const FIRST_METRIC: u32 = 2048;

/// What is to be so on the links of VMs: settings first, then routes where the link has an IPv6 address of its own.
#[must_use]
pub fn opened(links: &BTreeSet<&IfName>, facts: &Facts) -> (Vec<Op>, Vec<Op>) {
    let setting =
        |link: &&IfName| Op::WriteSysctl { key: Sysctl::ipv4_conf(link, "route_localnet"), value: "1".to_owned() };
    let is_routed = |link: &&Link| {
        let is_its_own = |held: &hostnet::facts::Address| {
            held.link == link.name && held.address.is_ipv6() && held.scope == AddressScope::Global
        };
        links.contains(&link.name) && facts.addresses.iter().any(is_its_own)
    };
    let route = |link: &Link| {
        let metric = FIRST_METRIC.saturating_add(link.index);
        loopback_v6().map(|loopback| Op::ReplaceRoute(Route::local(link.name.clone(), loopback, metric)))
    };
    let settings = links.iter().map(setting).collect();
    (settings, facts.links.iter().filter(is_routed).filter_map(route).collect())
}

/// Whether bridged IPv6 frames go through the host's rules (br_netfilter).
const BRIDGED_V6: &str = "bridge/bridge-nf-call-ip6tables";

/// The setting that [`is_unanswered`] looks at.
#[must_use]
pub fn settings() -> [Sysctl; 1] {
    [Sysctl::net(BRIDGED_V6)]
}

/// Whether answers to connections from ::1 are lost: br_netfilter translates them back while they cross the bridge of their VM,
/// and the kernel drops what then comes in for ::1 by a link (RFC 4291 §2.5.3). Elsewhere that check comes before translation.
#[must_use]
pub fn is_unanswered(links: &BTreeSet<&IfName>, facts: &Facts) -> bool {
    let is_bridge = |link: &Link| links.contains(&link.name) && link.kind == LinkKind::Bridge;
    facts.sysctl(&Sysctl::net(BRIDGED_V6)) == Some("1") && facts.links.iter().any(is_bridge)
}

/// What takes the routes away again; the settings are the host guard's.
#[must_use]
pub fn closed(facts: &Facts) -> Vec<Op> {
    let is_ours = |route: &&Route| {
        let is_late = route.metric.is_some_and(|metric| metric >= FIRST_METRIC);
        let is_local = route.table == TABLE_LOCAL && route.kind == RouteKind::Local;
        is_local && is_late && Some(route.destination) == loopback_v6()
    };
    facts.routes.iter().filter(is_ours).cloned().map(Op::DeleteRoute).collect()
}

fn loopback_v6() -> Option<IpNetwork> {
    IpNetwork::new(std::net::Ipv6Addr::LOCALHOST.into(), 128).ok()
}

#[cfg(test)]
mod tests {
    use hostnet::facts::Address;

    use super::*;

    #[test]
    fn routes_are_made_where_ipv6_is_routed_and_only_ours_are_taken_away() {
        let name = |text: &str| text.parse::<IfName>().unwrap();
        let held = |link: &str, address: &str| Address::permanent(name(link), address.parse().unwrap());
        let link = |index, text: &str| Link::new(index, name(text), LinkKind::Veth);
        let mut local = held("port", "fe80::1/64");
        local.scope = AddressScope::Link;
        let mut facts = Facts {
            links: vec![link(7, "routed"), link(8, "port"), link(9, "others")],
            addresses: vec![
                held("routed", "fd77::1/128"),
                held("routed", "10.0.0.1/32"),
                local,
                held("others", "fd00::1/64"),
            ],
            ..Facts::default()
        };
        let (routed, port) = (name("routed"), name("port"));
        let (settings, routes) = opened(&BTreeSet::from([&routed, &port]), &facts);
        assert_eq!(settings.len(), 2);
        let [Op::ReplaceRoute(route)] = routes.as_slice() else { panic!("{routes:?}") };
        assert_eq!((route.link.as_ref(), route.metric), (Some(&routed), Some(2055)));
        let kernels = Route::local(name("lo"), "::1/128".parse().unwrap(), 0);
        facts.routes = vec![kernels, route.clone(), Route::by(routed, "fd77::2/128".parse().unwrap())];
        assert_eq!(closed(&facts), [Op::DeleteRoute(route.clone())]);
    }
}
