//! What connection tracking must forget when the VMs behind a Service change.

use hostnet::Op;
use hostnet::nft::IpVersion;
use hostnet::op::Flow;
use terms::Protocol;
use wiring::Family;

use super::{Frontend, Services};

impl Services {
    /// Flows to VMs that were behind a Service `before` and are not any more. UDP has no end that connection tracking sees:
    /// clients would go on sending to a VM that is gone.
    #[must_use]
    pub fn stale_flows(&self, before: Option<&Self>) -> Vec<Op> {
        let changed = |old: &&Frontend| {
            let new = self.frontends.iter().find(|new| new.name == old.name && new.family == old.family);
            old.protocol == Protocol::Udp && !new.is_some_and(|new| old.backends.is_subset(&new.backends))
        };
        let flows = |frontend: &Frontend| {
            let (version, protocol) = (version(frontend.family), frontend.protocol);
            let flow = move |destination, port| Op::Forget(Flow { version, protocol, destination, port });
            let at_addresses = frontend.addresses.iter().map(|address| flow(Some(*address), frontend.port));
            at_addresses.chain(frontend.node_port.map(|port| flow(None, port))).collect::<Vec<_>>()
        };
        before.iter().flat_map(|services| &services.frontends).filter(changed).flat_map(flows).collect()
    }
}

fn version(family: Family) -> IpVersion {
    match family {
        Family::V4 => IpVersion::V4,
        Family::V6 => IpVersion::V6,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn udp_flows_are_forgotten_only_when_a_backend_goes() {
        let frontend = |backends: &[&str]| Frontend {
            name: "default/dns/53".into(),
            family: Family::V4,
            protocol: Protocol::Udp,
            addresses: BTreeSet::from(["172.30.78.9".parse().unwrap()]),
            port: 53,
            node_port: Some(30053),
            affinity_seconds: None,
            backends: backends.iter().map(|backend| backend.parse().unwrap()).collect(),
        };
        let services = |backends: &[&str]| Services { frontends: vec![frontend(backends)], ..Services::default() };
        let (one, both) = (services(&["10.0.0.1:53"]), services(&["10.0.0.1:53", "10.0.0.2:53"]));
        assert_eq!(one.stale_flows(None), []);
        assert_eq!(both.stale_flows(Some(&one)), []);
        assert_eq!(one.stale_flows(Some(&both)).len(), 2);
        assert_eq!(Services::default().stale_flows(Some(&one)).len(), 2);
    }
}
