//! Which NIC's guest is told of a default route: one in each family, however many NICs could give one.
//!
//! A guest that is offered several takes the fastest, or the last, or all. So the pod's own table decides: the NIC whose pod
//! interface has its default route, which is the first of the specification's `networks` that gives one, because they are
//! attached in this order. Where none has, it is the first NIC behind NAT, whose gateway is the pod itself.

use hostnet::facts::{Facts, Route, RouteKind, TABLE_MAIN};
use wiring::{Binding, Family, Interface};

/// Whether the guest of NIC number `index` of those that are plugged in at `interfaces` is told of a default route.
pub(super) fn is_told(interfaces: &[&Interface], index: usize, facts: &Facts, family: Family) -> bool {
    let is_default = |route: &&Route| {
        let is_of_family = route.destination.is_ipv4() == (family == Family::V4);
        route.is_default() && is_of_family && route.table == TABLE_MAIN && route.kind == RouteKind::Unicast
    };
    // Among equals the kernel takes the first of its list, as this does.
    let chosen = facts.routes.iter().filter(is_default).min_by_key(|route| route.metric.unwrap_or_default());
    let link = chosen.and_then(|route| route.link.as_ref());
    let by_table = interfaces.iter().position(|interface| Some(&interface.pod_interface) == link);
    let by_nat = || interfaces.iter().position(|interface| interface.binding == Binding::Masquerade);
    by_table.or_else(by_nat) == Some(index)
}

#[cfg(test)]
mod tests {
    use terms::IfName;

    use super::*;

    fn plugged(nics: &[(&str, Binding)]) -> Vec<Interface> {
        nics.iter().map(|(link, binding)| Interface::new(link, link.parse().unwrap(), *binding)).collect()
    }

    fn facts(routes: &[(&str, &str, u32)]) -> Facts {
        let route = |(link, to, metric): &(&str, &str, u32)| {
            let route = Route::by(link.parse::<IfName>().unwrap(), to.parse().unwrap());
            Route { metric: Some(*metric), ..route }
        };
        Facts { routes: routes.iter().map(route).collect(), ..Facts::default() }
    }

    fn told(interfaces: &[Interface], facts: &Facts, family: Family) -> Vec<bool> {
        let interfaces: Vec<_> = interfaces.iter().collect();
        (0..interfaces.len()).map(|index| is_told(&interfaces, index, facts, family)).collect()
    }

    #[test]
    fn the_first_route_of_the_least_metric_decides_in_each_family() {
        let interfaces =
            plugged(&[("eth0", Binding::Masquerade), ("net1", Binding::Bridge), ("net2", Binding::Masquerade)]);
        let facts = facts(&[
            ("net1", "10.0.0.0/8", 0),
            ("net1", "0.0.0.0/0", 0),
            ("eth0", "0.0.0.0/0", 0),
            ("net2", "::/0", 512),
            ("eth0", "::/0", 1024),
        ]);
        assert_eq!(told(&interfaces, &facts, Family::V4), [false, true, false]);
        assert_eq!(told(&interfaces, &facts, Family::V6), [false, false, true]);
    }

    #[test]
    fn without_one_it_is_the_first_nic_behind_nat() {
        let nics = [("net1", Binding::Bridge), ("net2", Binding::Masquerade), ("eth0", Binding::Masquerade)];
        let on_host_alone = facts(&[("lo", "0.0.0.0/0", 0)]);
        assert_eq!(told(&plugged(&nics), &on_host_alone, Family::V4), [false, true, false]);
        assert_eq!(told(&plugged(&nics[..1]), &Facts::default(), Family::V6), [false]);
    }
}
