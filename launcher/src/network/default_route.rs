//! Which NIC's guest is told of a default route: one in each family, however many NICs could give one.
//!
//! A guest that is offered several takes the fastest, or the last, or all. So the pod's own table decides: the NIC whose pod
//! interface has its default route, which is the first of the specification's `networks` that gives one, because they are
//! attached in this order. Where none has, it is the first NIC behind NAT, whose gateway is the pod itself.

use hostnet::facts::{Facts, Route, RouteKind, TABLE_MAIN};
use machine::Machine;
use wiring::{Binding, Family};

/// Whether the guest of the machine's NIC number `index` is told of a default route.
pub(super) fn is_told(machine: &Machine, index: usize, facts: &Facts, family: Family) -> bool {
    let is_default = |route: &&Route| {
        let is_of_family = route.destination.is_ipv4() == (family == Family::V4);
        route.is_default() && is_of_family && route.table == TABLE_MAIN && route.kind == RouteKind::Unicast
    };
    // Among equals the kernel takes the first of its list, as this does.
    let chosen = facts.routes.iter().filter(is_default).min_by_key(|route| route.metric.unwrap_or_default());
    let link = chosen.and_then(|route| route.link.as_ref());
    let by_table = machine.nics.iter().position(|nic| Some(&nic.pod_interface) == link);
    let by_nat = || machine.nics.iter().position(|nic| nic.binding == Binding::Masquerade);
    by_table.or_else(by_nat) == Some(index)
}

#[cfg(test)]
mod tests {
    use terms::IfName;

    use super::*;
    use crate::fixtures::machine_for_tests;

    fn machine(nics: &[(&str, Binding)]) -> Machine {
        let mut machine = machine_for_tests();
        let like = machine.nics[0].clone();
        let nic = |(link, binding): &(&str, Binding)| {
            let (pod_interface, binding) = (link.parse().unwrap(), *binding);
            machine::Nic { name: (*link).to_owned(), pod_interface, binding, ..like.clone() }
        };
        machine.nics = nics.iter().map(nic).collect();
        machine
    }

    fn facts(routes: &[(&str, &str, u32)]) -> Facts {
        let route = |(link, to, metric): &(&str, &str, u32)| {
            let route = Route::by(link.parse::<IfName>().unwrap(), to.parse().unwrap());
            Route { metric: Some(*metric), ..route }
        };
        Facts { routes: routes.iter().map(route).collect(), ..Facts::default() }
    }

    fn told(machine: &Machine, facts: &Facts, family: Family) -> Vec<bool> {
        (0..machine.nics.len()).map(|index| is_told(machine, index, facts, family)).collect()
    }

    #[test]
    fn the_first_route_of_the_least_metric_decides_in_each_family() {
        let machine =
            machine(&[("eth0", Binding::Masquerade), ("net1", Binding::Bridge), ("net2", Binding::Masquerade)]);
        let facts = facts(&[
            ("net1", "10.0.0.0/8", 0),
            ("net1", "0.0.0.0/0", 0),
            ("eth0", "0.0.0.0/0", 0),
            ("net2", "::/0", 512),
            ("eth0", "::/0", 1024),
        ]);
        assert_eq!(told(&machine, &facts, Family::V4), [false, true, false]);
        assert_eq!(told(&machine, &facts, Family::V6), [false, false, true]);
    }

    #[test]
    fn without_one_it_is_the_first_nic_behind_nat() {
        let nics = [("net1", Binding::Bridge), ("net2", Binding::Masquerade), ("eth0", Binding::Masquerade)];
        let on_host_alone = facts(&[("lo", "0.0.0.0/0", 0)]);
        assert_eq!(told(&machine(&nics), &on_host_alone, Family::V4), [false, true, false]);
        assert_eq!(told(&machine(&nics[..1]), &Facts::default(), Family::V6), [false]);
    }
}
