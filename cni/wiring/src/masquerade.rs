//! The private subnet of a masquerade NIC: which address is the gateway's and which the guest's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use terms::{IpNetwork, Ipv4Network, Ipv6Network, MacAddr};

/// The gateway's Ethernet address, the same for every VM so that a guest's neighbour entry survives migration.
pub const MASQUERADE_GATEWAY_MAC: MacAddr = MacAddr::local([0; 5]);

/// The gateway's link-local address, made of its Ethernet address (RFC 4291 appendix A).
pub const MASQUERADE_GATEWAY_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 0);

/// An IP family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Family {
    /// RFC 791.
    V4,
    /// RFC 8200.
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

    #[test]
    fn a_subnet_without_two_hosts_is_none() {
        assert_eq!(GuestSubnet::v4("10.0.2.0/31".parse().unwrap()), None);
        assert_eq!(GuestSubnet::v6("fd10::/127".parse().unwrap()), None);
    }
}
