//! The addresses that the launcher uses on a bridge-bound NIC's service tap; the plugin's rules know them too.

use std::net::Ipv6Addr;

use terms::MacAddr;

/// The link-local address of the router that the launcher plays where the pod's own next hop has a global address, which no
/// router advertisement can announce. Not fe80::1, which real gateways use.
pub const VIRTUAL_ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x7476, 1);

/// The link-local address from which the launcher asks for the gateway of a NIC with this Ethernet address:
/// `fe80::7476:` and the Ethernet address.
///
/// It asks from the NIC's own Ethernet address, because a macvlan, or a switch that knows its ports' addresses, delivers no
/// answer to any other; by this destination the rules tell the answer from the guest's.
#[must_use]
pub fn service_link_local(nic: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = nic.bytes();
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x74, 0x76, a, b, c, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_launcher_asks_from_an_address_of_its_own_for_each_nic() {
        let address = service_link_local(MacAddr::local([0xa, 0xb, 0xc, 0xd, 0xe]));
        assert_eq!(address.to_string(), "fe80::7476:20a:b0c:d0e");
        assert_ne!(address, VIRTUAL_ROUTER);
    }
}
