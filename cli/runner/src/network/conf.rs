//! The configurations that are ours: the built-in default network, and the binding attachment.

use std::path::Path;

use serde_json::{Value, json};
use terms::IpNetwork;
use wiring::Request;

/// The name of the built-in network.
pub const DEFAULT_NETWORK: &str = "tapvisor-default";

/// Under which interface name the binding attachment is known; it makes no interface of that name.
pub const BINDING_KEY: &str = "vm";

const RANGE: &str = "172.30.77.0/24";
const RANGE6: &str = "fd77:7461:7076::/64";

/// The default dual-stack network of VMs: a point-to-point link from the host to each VM's pod, so that no VM shares a segment
/// with another; by our own plugin, addresses in process. They are kept below `ipam`, so that no other user of host-local
/// sees them.
#[must_use]
pub fn built_in(ipam: &Path) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": DEFAULT_NETWORK,
        "plugins": [{
            "type": "tapvisor-bridge",
            "pointToPoint": true,
            "ipMasq": true,
            "ipam": {
                "type": "host-local",
                "dataDir": ipam,
                "ranges": [[{"subnet": RANGE}], [{"subnet": RANGE6}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        }],
    })
}

/// The ranges of the built-in network.
#[must_use]
pub fn ranges() -> Vec<IpNetwork> {
    [RANGE, RANGE6].iter().filter_map(|range| range.parse().ok()).collect()
}

/// The trailing attachment that wires all NICs: its plugin reads the request from its own configuration.
#[must_use]
pub fn binding(request: &Request) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "tapvisor-binding",
        "plugins": [{"type": "tapvisor", "wiring": request}],
    })
}

#[cfg(test)]
mod tests {
    use cni_protocol::runtime::ConfigList;

    use super::*;

    #[test]
    fn our_own_configurations_are_valid_and_have_the_ranges_they_say() {
        let built_in = built_in(Path::new("/run/tapvisor/ipam"));
        let ipam = &built_in["plugins"][0]["ipam"];
        let subnets = [&ipam["ranges"][0][0]["subnet"], &ipam["ranges"][1][0]["subnet"]];
        assert_eq!(ranges().iter().map(ToString::to_string).collect::<Vec<_>>(), subnets.map(|s| s.as_str().unwrap()));
        assert_eq!(ConfigList::from_value(built_in.clone()).unwrap().name().as_str(), DEFAULT_NETWORK);
        let request = Request::parse(r#"{"version":1,"owner":{"uid":107,"gid":107},"interfaces":[]}"#).unwrap();
        let binding = ConfigList::from_value(binding(&request)).unwrap();
        assert_eq!(binding.types().collect::<Vec<_>>(), ["tapvisor"]);
    }
}
