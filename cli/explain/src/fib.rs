//! Which route a packet takes: the longest prefix, then the lowest metric, in the tables that the default rules name.

use std::net::IpAddr;

use hostnet::Facts;
use hostnet::facts::{Link, Route, TABLE_LOCAL, TABLE_MAIN};
use hostnet::sysctl::Sysctl;
use terms::IfName;

/// The route to an address. Rules that choose other tables are not looked at.
pub(crate) fn route_to(facts: &Facts, address: IpAddr) -> Option<&Route> {
    let candidates = facts.routes.iter().filter(|route| {
        matches!(route.table, TABLE_MAIN | TABLE_LOCAL)
            && route.destination.is_ipv4() == address.is_ipv4()
            && route.destination.contains(address)
    });
    candidates.min_by_key(|route| (u8::MAX - route.destination.prefix(), route.table == TABLE_MAIN, route.metric))
}

/// The default route of a family that a namespace would take.
pub(crate) fn default_route(facts: &Facts, is_ipv4: bool) -> Option<&Route> {
    let candidates = facts
        .routes
        .iter()
        .filter(|route| route.table == TABLE_MAIN && route.is_default() && route.destination.is_ipv4() == is_ipv4);
    candidates.min_by_key(|route| route.metric)
}

/// Whether the kernel drops what enters by a link from an address to which no route leads back by the same link.
pub(crate) fn is_strict(facts: &Facts, link: &IfName) -> bool {
    let value = |key: &Sysctl| facts.sysctl(key).and_then(|value| value.parse::<u8>().ok()).unwrap_or(0);
    let all = Sysctl::net("ipv4/conf/all/rp_filter");
    // The larger of the two counts; 2 is the loose mode (`ip-sysctl.rst` of the kernel).
    value(&all).max(value(&Sysctl::ipv4_conf(link, "rp_filter"))) == 1
}

/// Whether a route leaves by a link, on any of its hops.
pub(crate) fn leaves_by(route: &Route, link: &Link) -> bool {
    let hops = route.more_hops.iter().map(|hop| &hop.link);
    std::iter::once(&route.link).chain(hops).any(|by| by.as_ref() == Some(&link.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let route = |link: &str, to: &str, metric| Route {
            metric: Some(metric),
            ..Route::by(link.parse().unwrap(), to.parse().unwrap())
        };
        let routes =
            vec![route("far", "0.0.0.0/0", 0), route("near", "10.0.0.0/8", 5), route("nearer", "10.0.0.0/8", 1)];
        Facts { routes, ..Facts::default() }
    }

    #[test]
    fn the_longest_prefix_and_then_the_lowest_metric_wins() {
        let by = |address: &str| {
            route_to(&facts(), address.parse().unwrap()).and_then(|route| route.link.as_ref()).map(ToString::to_string)
        };
        assert_eq!(by("10.1.2.3").as_deref(), Some("nearer"));
        assert_eq!(by("192.0.2.1").as_deref(), Some("far"));
        assert_eq!(by("fd00::1"), None);
        assert_eq!(default_route(&facts(), false), None);
    }

    #[test]
    fn the_stricter_rp_filter_of_link_and_all_applies_and_loose_is_weaker() {
        let link = "eth0".parse().unwrap();
        for (all, own, strict) in [("0", "0", false), ("1", "0", true), ("0", "1", true), ("2", "1", false)] {
            let sysctls = [
                (Sysctl::net("ipv4/conf/all/rp_filter"), Some(all.to_owned())),
                (Sysctl::ipv4_conf(&link, "rp_filter"), Some(own.to_owned())),
            ];
            let facts = Facts { sysctls: sysctls.into(), ..Facts::default() };
            assert_eq!(is_strict(&facts, &link), strict, "all {all}, own {own}");
        }
    }
}
