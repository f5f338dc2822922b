//! The conntrack entries to delete when the VMs behind a Service change.
//!
//! A flow is translated when it begins, or never. UDP has no end that connection tracking sees: a client that goes on sending
//! keeps its flow alive, translated to a VM that is gone, or untranslated because it began before there was a VM.

use hostnet::Op;
use hostnet::nft::IpVersion;
use hostnet::op::Flow;
use terms::Protocol;
use wiring::Family;

use super::{Frontend, Services};

impl Services {
    /// UDP flows to VMs that were behind a Service `before` and are not any more, and those to a Service that had none and
    /// now has.
    #[must_use]
    pub fn stale_flows(&self, before: Option<&Self>) -> Vec<Op> {
        let nothing = Self::default();
        let before = before.unwrap_or(&nothing);
        let (gone, come) = (before.without(self).frontends, self.without(before).frontends);
        let left = gone.iter().filter(|old| {
            let new = old.counterpart(&come);
            !new.is_some_and(|new| old.backends.is_subset(&new.backends))
        });
        let came = come.iter().filter(|new| {
            let had_some = new.counterpart(&gone).is_some_and(|old| !old.backends.is_empty());
            !new.backends.is_empty() && !had_some
        });
        let flows = |frontend: &Frontend| {
            let (version, protocol) = (version(frontend.family), frontend.protocol);
            let flow = move |destination, port| Op::DeleteConntrack(Flow { version, protocol, destination, port });
            let at_addresses = frontend.addresses.iter().map(|address| flow(Some(*address), frontend.port));
            at_addresses.chain(frontend.node_port.map(|port| flow(None, port))).collect::<Vec<_>>()
        };
        left.chain(came).filter(|frontend| frontend.protocol == Protocol::Udp).flat_map(flows).collect()
    }
}

impl Frontend {
    /// The same port of the same Service at another time.
    fn counterpart<'a>(&self, others: &'a [Self]) -> Option<&'a Self> {
        others.iter().find(|other| other.name == self.name && other.family == self.family)
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
    fn udp_flows_are_deleted_when_a_backend_goes_or_the_first_one_is_added() {
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
        let empty = services(&[]);
        assert_eq!(one.stale_flows(None).len(), 2, "flows of clients that sent before are not translated");
        assert_eq!(one.stale_flows(Some(&empty)).len(), 2);
        assert_eq!((empty.stale_flows(None), empty.stale_flows(Some(&empty))), (vec![], vec![]));
        assert_eq!(both.stale_flows(Some(&one)), []);
        assert_eq!(one.stale_flows(Some(&both)).len(), 2);
        assert_eq!(Services::default().stale_flows(Some(&one)).len(), 2);
    }
}
