//! The private subnet of a masquerade NIC: which address is the gateway's and which the guest's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use terms::{IpNetwork, Ipv4Network, Ipv6Network, MacAddr};

/// The gateway's Ethernet address, the same for every VM so that a guest's neighbour entry survives migration.
pub const MASQUERADE_GATEWAY_MAC: MacAddr = MacAddr::local([0; 5]);

/// The gateway's link-local address, made of its Ethernet address (RFC 4291 appendix A).
pub const MASQUERADE_GATEWAY_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 0);

/// The family of an address, with one tap address and subnet each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Family {
    /// IPv4 (RFC 791).
    V4,
    /// IPv6 (RFC 8200).
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// A subnet behind a masquerade NIC: the first address after the network's own is the gateway's, the second the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestSubnet {
    /// The gateway's address with the prefix length.
    pub gateway: IpNetwork,
    /// The guest's address with the prefix length.
    pub guest: IpNetwork,
}

impl GuestSubnet {
    /// The IPv4 subnet; `cidr` may be any address in it. `None` when it has fewer than two host addresses (/31, /32).
    #[must_use]
    pub fn v4(cidr: Ipv4Network) -> Option<Self> {
        let host = |n: u32| {
            let address = Ipv4Addr::from_bits(cidr.network().to_bits() + n);
            Ipv4Network::new(address, cidr.prefix()).ok().map(IpNetwork::V4)
        };
        (cidr.prefix() <= 30).then(|| Some(Self { gateway: host(1)?, guest: host(2)? }))?
    }

    /// The IPv6 subnet; `cidr` may be any address in it. `None` when it is longer than /126.
    #[must_use]
    pub fn v6(cidr: Ipv6Network) -> Option<Self> {
        let host = |n: u128| {
            let address = Ipv6Addr::from_bits(cidr.network().to_bits() + n);
            Ipv6Network::new(address, cidr.prefix()).ok().map(IpNetwork::V6)
        };
        (cidr.prefix() <= 126).then(|| Some(Self { gateway: host(1)?, guest: host(2)? }))?
    }
}

/// What a range meets that no host can have for itself, in the words of the registries (RFC 6890, RFC 4291 §2.4).
#[must_use]
pub fn reserved(range: IpNetwork) -> Option<&'static str> {
    const fn v4(address: [u8; 4], prefix: u8) -> IpNetwork {
        let [a, b, c, d] = address;
        match Ipv4Network::new_checked(Ipv4Addr::new(a, b, c, d), prefix) {
            Some(network) => IpNetwork::V4(network),
            None => unreachable!(),
        }
    }
    const fn v6(first: u16, last: u16, prefix: u8) -> IpNetwork {
        match Ipv6Network::new_checked(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last), prefix) {
            Some(network) => IpNetwork::V6(network),
            None => unreachable!(),
        }
    }
    const RESERVED: [(IpNetwork, &str); 9] = [
        (v4([0, 0, 0, 0], 8), "addresses of this host on this network"),
        (v4([127, 0, 0, 0], 8), "loopback addresses"),
        (v4([169, 254, 0, 0], 16), "link-local addresses"),
        (v4([224, 0, 0, 0], 4), "multicast addresses"),
        (v4([240, 0, 0, 0], 4), "reserved addresses and broadcast"),
        (v6(0, 0, 128), "the unspecified address"),
        (v6(0, 1, 128), "the loopback address"),
        (v6(0xfe80, 0, 10), "link-local addresses"),
        (v6(0xff00, 0, 8), "multicast addresses"),
    ];
    RESERVED.iter().find(|(reserved, _)| overlap(*reserved, range)).map(|(_, what)| *what)
}

/// Whether two ranges have an address in common.
#[must_use]
pub fn overlap(one: IpNetwork, other: IpNetwork) -> bool {
    match (one, other) {
        (IpNetwork::V4(one), IpNetwork::V4(other)) => one.overlaps(other),
        (IpNetwork::V6(one), IpNetwork::V6(other)) => one.overlaps(other),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_comes_first_and_guest_second() {
        let subnet = GuestSubnet::v4("10.0.2.7/24".parse().unwrap()).unwrap();
        assert_eq!(subnet.gateway.to_string(), "10.0.2.1/24");
        assert_eq!(subnet.guest.to_string(), "10.0.2.2/24");
        let subnet = GuestSubnet::v6("fd10:0:2::/120".parse().unwrap()).unwrap();
        assert_eq!(
            (subnet.gateway.to_string(), subnet.guest.to_string()),
            ("fd10:0:2::1/120".into(), "fd10:0:2::2/120".into())
        );
    }

    // spec: NET-1
    #[test]
    fn ranges_that_no_host_can_have_are_recognised() {
        let of = |range: &str| reserved(range.parse().unwrap());
        for (range, word) in [
            ("127.4.0.0/16", "loopback"),
            ("224.0.0.0/24", "multicast"),
            ("192.0.0.0/2", "multicast"),
            ("255.255.255.0/24", "broadcast"),
            ("::/64", "unspecified"),
            ("ff02::/16", "multicast"),
            ("fe80::/64", "link-local"),
        ] {
            assert!(of(range).is_some_and(|what| what.contains(word)), "{range}: {:?}", of(range));
        }
        for range in ["10.0.0.0/8", "192.168.0.0/16", "fd10:0:2::/120", "2001:db8::/32"] {
            assert_eq!(of(range), None, "{range}");
        }
    }

    #[test]
    fn a_subnet_without_two_hosts_is_none() {
        assert_eq!(GuestSubnet::v4("10.0.2.0/31".parse().unwrap()), None);
        assert_eq!(GuestSubnet::v6("fd10::/127".parse().unwrap()), None);
    }
}
