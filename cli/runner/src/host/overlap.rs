//! Whether a network's range overlaps with one that this host uses already.

use std::fmt;

use hostnet::facts::{Facts, RouteKind};
use terms::{IfName, IpNetwork};

/// Something on the host that the range would hide, or be hidden by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// The range that is to be used for VMs.
    pub range: IpNetwork,
    /// The host's address or the destination of its route.
    pub with: IpNetwork,
    /// Whether that is an address or a route.
    pub is_address: bool,
    /// The link it is on.
    pub link: Option<IfName>,
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_address { "address" } else { "route" };
        write!(f, "{} overlaps the host's {kind} {}", self.range, self.with)?;
        self.link.as_ref().map_or(Ok(()), |link| write!(f, " on {link}"))
    }
}

/// The first address or route of the host that meets one of `ranges`. Default routes meet everything and do not count,
/// nor does what the kernel derives from addresses.
#[must_use]
pub fn overlap(facts: &Facts, ranges: &[IpNetwork]) -> Option<Overlap> {
    let addresses = facts.addresses.iter().map(|held| (held.address, true, Some(held.link.clone())));
    let routes = facts
        .routes
        .iter()
        .filter(|route| !route.is_default())
        .filter(|route| !matches!(route.kind, RouteKind::Local | RouteKind::Broadcast | RouteKind::Multicast))
        .map(|route| (route.destination, false, route.link.clone()));
    addresses.chain(routes).find_map(|(with, is_address, link)| {
        let range = *ranges.iter().find(|range| meet(**range, with))?;
        Some(Overlap { range, with, is_address, link })
    })
}

fn meet(one: IpNetwork, other: IpNetwork) -> bool {
    match (one, other) {
        (IpNetwork::V4(one), IpNetwork::V4(other)) => one.overlaps(other),
        (IpNetwork::V6(one), IpNetwork::V6(other)) => one.overlaps(other),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use hostnet::facts::{Address, Route};

    use super::*;

    fn ranges() -> Vec<IpNetwork> {
        ["172.30.77.0/24", "fd77:7461:7076::/64"].map(|range| range.parse().unwrap()).to_vec()
    }

    fn route(link: &str, destination: &str) -> Facts {
        let route = Route::by(link.parse().unwrap(), destination.parse().unwrap());
        Facts { routes: vec![route], ..Facts::default() }
    }

    #[test]
    fn wider_and_narrower_routes_meet_and_default_routes_do_not() {
        assert_eq!(overlap(&route("eth0", "0.0.0.0/0"), &ranges()), None);
        assert_eq!(overlap(&route("eth0", "172.30.78.0/24"), &ranges()), None);
        let wide = overlap(&route("tun0", "172.16.0.0/12"), &ranges()).unwrap();
        assert_eq!(wide.to_string(), "172.30.77.0/24 overlaps the host's route 172.16.0.0/12 on tun0");
        assert!(overlap(&route("eth0", "172.30.77.9/32"), &ranges()).is_some());
        assert!(overlap(&route("eth0", "fd77:7461::/32"), &ranges()).is_some());
    }

    #[test]
    fn addresses_meet() {
        let address = Address::permanent("br0".parse().unwrap(), "172.30.77.1/16".parse().unwrap());
        let facts = Facts { addresses: vec![address], ..Facts::default() };
        let found = overlap(&facts, &ranges()).unwrap();
        assert_eq!(found.to_string(), "172.30.77.0/24 overlaps the host's address 172.30.77.1/16 on br0");
    }
}
