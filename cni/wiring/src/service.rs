//! The addresses that the launcher uses on a bridge-bound NIC's service tap; the plugin's rules know them too.

use std::net::Ipv6Addr;

use sha2::{Digest as _, Sha256};
use terms::MacAddr;

use crate::Digest;

/// The link-local address of the router that the launcher plays where the pod's own next hop has a global address, which no
/// router advertisement can announce. Not fe80::1, which real gateways use.
pub const VIRTUAL_ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x7476, 1);

/// The Ethernet address from which the launcher asks for the gateway of a bridge-bound NIC.
///
/// It is seen on the pod network, so it differs from pod to pod: it is derived from the request and from the Ethernet
/// address of the pod interface as the wiring left it, which nobody else on that network has.
#[must_use]
pub fn service_mac(request: Digest, pod_interface: MacAddr) -> MacAddr {
    let mut hash = Sha256::new();
    hash.update(b"tapvisor service tap");
    hash.update(request.bytes());
    hash.update(pod_interface.bytes());
    let hash = hash.finalize();
    let mut bytes = [0; 5];
    bytes.copy_from_slice(&hash[..5]);
    MacAddr::local(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_mac_is_stable_local_and_differs_by_pod_and_request() {
        let (one, two): (Digest, Digest) = ("00112233445566ff".parse().unwrap(), "00112233445566fe".parse().unwrap());
        let (a, b) = (MacAddr::local([0, 0, 0, 0, 1]), MacAddr::local([0, 0, 0, 0, 2]));
        assert_eq!(service_mac(one, a), service_mac(one, a));
        assert_ne!(service_mac(one, a), service_mac(one, b));
        assert_ne!(service_mac(one, a), service_mac(two, a));
        assert_eq!(service_mac(one, a).bytes()[0], 0x02);
    }
}
