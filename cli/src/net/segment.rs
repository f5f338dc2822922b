//! Segments of a host from facts and records: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bridge::Attached;
use hostnet::Facts;
use hostnet::facts::{BridgeSettings, Link, LinkKind};
use serde::Serialize;
use terms::{IfName, IpNetwork, MacAddr};

/// The VM of each container id.
pub(super) type Vms = BTreeMap<String, String>;

/// A bridge, or a cable that the host routes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Segment {
    /// The bridge, or the host's end of the cable.
    pub(super) name: IfName,
    pub(super) kind: Kind,
    pub(super) up: bool,
    pub(super) mtu_bytes: u32,
    pub(super) mac: Option<MacAddr>,
    /// The host's own.
    pub(super) addresses: Vec<IpNetwork>,
    /// Of a bridge.
    pub(super) settings: Option<BridgeSettings>,
    /// Networks of tapvisor-bridge that have attachments on it.
    pub(super) networks: BTreeSet<String>,
    pub(super) ports: Vec<Port>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Kind {
    Bridge,
    PointToPoint,
}

/// A port of a bridge, or the cable itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Port {
    pub(super) name: IfName,
    pub(super) up: bool,
    pub(super) hairpin: bool,
    pub(super) isolated: bool,
    pub(super) vlans: Vec<Vlans>,
    /// Who is behind it, if it was attached by tapvisor-bridge.
    pub(super) owner: Option<Owner>,
    /// What the bridge has learned there.
    pub(super) stations: Vec<Station>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Vlans {
    pub(super) first: u16,
    pub(super) last: u16,
    /// Frames without a tag belong to it.
    pub(super) native: bool,
    pub(super) untagged: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Owner {
    pub(super) network: String,
    pub(super) container_id: String,
    pub(super) interface: IfName,
    /// NAMESPACE/NAME of the VM whose pod it is.
    pub(super) vm: Option<String>,
    pub(super) leases: Vec<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Station {
    pub(super) mac: MacAddr,
    pub(super) vlan: Option<u16>,
}

impl Segment {
    /// Whether it has that name, or is of that network.
    pub(super) fn answers_to(&self, name: &str) -> bool {
        self.name.as_str() == name || self.networks.contains(name)
    }
}

/// All bridges in the order of their names, then the cables of attachments that are on no bridge.
pub(super) fn segments(facts: &Facts, attached: &[Attached], vms: &Vms) -> Vec<Segment> {
    let mut all: Vec<_> = facts.links.iter().filter(|link| link.kind == LinkKind::Bridge).collect();
    let is_cable = |link: &&Link| link.master.is_none() && attached.iter().any(|one| one.host_end == link.name);
    all.sort_by(|one, other| one.name.cmp(&other.name));
    let mut cables: Vec<_> = facts.links.iter().filter(is_cable).collect();
    cables.sort_by(|one, other| one.name.cmp(&other.name));
    all.extend(cables);
    all.into_iter().map(|link| segment(link, facts, attached, vms)).collect()
}

fn segment(link: &Link, facts: &Facts, attached: &[Attached], vms: &Vms) -> Segment {
    let is_bridge = link.kind == LinkKind::Bridge;
    let is_port =
        |other: &&Link| if is_bridge { other.master.as_ref() == Some(&link.name) } else { other.name == link.name };
    let mut ports: Vec<_> = facts.links.iter().filter(is_port).map(|one| port(one, facts, attached, vms)).collect();
    ports.sort_by(|one, other| one.name.cmp(&other.name));
    Segment {
        name: link.name.clone(),
        kind: if is_bridge { Kind::Bridge } else { Kind::PointToPoint },
        up: link.up,
        mtu_bytes: link.mtu_bytes,
        mac: link.mac,
        addresses: facts.addresses_of(&link.name).map(|held| held.address).collect(),
        settings: link.bridge,
        networks: ports.iter().filter_map(|port| port.owner.as_ref()).map(|owner| owner.network.clone()).collect(),
        ports,
    }
}

fn port(link: &Link, facts: &Facts, attached: &[Attached], vms: &Vms) -> Port {
    let settings = link.port.unwrap_or_default();
    let learned = facts.forwarding.iter().filter(|entry| entry.port == link.name && !entry.permanent);
    let stations = learned.filter_map(|entry| Some(Station { mac: entry.station()?, vlan: entry.vlan }));
    let owner = attached.iter().find(|one| one.host_end == link.name).map(|one| Owner {
        network: one.network.to_string(),
        container_id: one.container_id.to_string(),
        interface: one.if_name.clone(),
        vm: vms.get(&one.container_id.to_string()).cloned(),
        leases: one.leases.clone(),
    });
    let vlans = facts.vlans_of(&link.name).map(|held| Vlans {
        first: held.first.value(),
        last: held.last.value(),
        native: held.pvid,
        untagged: held.untagged,
    });
    Port {
        name: link.name.clone(),
        up: link.up,
        hairpin: settings.hairpin,
        isolated: settings.isolated,
        vlans: vlans.collect(),
        owner,
        stations: stations.collect(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use hostnet::facts::{Address, BridgePort, ForwardingEntry, PortVlans};

    use super::*;

    fn name(text: &str) -> IfName {
        text.parse().unwrap()
    }

    /// A bridge with a VM on VLAN 7, a container that is isolated, and a port of another program; and a VM on a cable.
    pub(in super::super) fn host() -> Vec<Segment> {
        let port = |index, text: &str, isolated| Link {
            up: true,
            master: Some(name("blue0")),
            port: Some(BridgePort { isolated, hairpin: false }),
            ..Link::new(index, name(text), LinkKind::Veth)
        };
        let settings = BridgeSettings { vlan_filtering: Some(true), multicast_snooping: true, ..Default::default() };
        let bridge = Link { up: true, bridge: Some(settings), ..Link::new(2, name("blue0"), LinkKind::Bridge) };
        let cable = Link { up: true, ..Link::new(6, name("vethcable"), LinkKind::Veth) };
        let links = vec![cable, port(4, "vethb", true), port(3, "vetha", false), port(5, "tap9", false), bridge];
        let vlan = |number: u64| number.try_into().unwrap();
        let station = |mac: [u8; 6], permanent| ForwardingEntry {
            bridge: Some(name("blue0")),
            port: name("vetha"),
            mac,
            vlan: Some(7),
            permanent,
        };
        let facts = Facts {
            addresses: vec![
                Address::permanent(name("blue0"), "10.77.1.1/24".parse().unwrap()),
                Address::permanent(name("vethcable"), "172.30.77.1/32".parse().unwrap()),
            ],
            vlans: vec![
                PortVlans::native(name("vetha"), vlan(7)),
                PortVlans::tagged(name("vetha"), (vlan(100), vlan(110))),
            ],
            forwarding: vec![station([2, 0, 0, 0, 0, 7], false), station([2, 0, 0, 0, 0, 8], true)],
            links,
            ..Facts::default()
        };
        let attached = |network: &str, id: &str, end: &str, leases: &[&str]| Attached {
            network: network.parse().unwrap(),
            container_id: id.parse().unwrap(),
            if_name: name("eth0"),
            host_end: name(end),
            leases: leases.iter().map(|lease| lease.parse().unwrap()).collect(),
        };
        let attached = [
            attached("blue", "c1", "vetha", &["10.77.1.2", "fd77:1::2"]),
            attached("blue", "c2", "vethb", &[]),
            attached("tapvisor-default", "c3", "vethcable", &["172.30.77.2"]),
            attached("gone", "c4", "vethgone", &[]),
        ];
        let vms =
            Vms::from([("c1".to_owned(), "default/left".to_owned()), ("c3".to_owned(), "default/web".to_owned())]);
        segments(&facts, &attached, &vms)
    }

    // spec: NET-20
    #[test]
    fn every_port_of_a_bridge_is_named_with_who_is_behind_it() {
        let all = host();
        assert_eq!(
            all.iter().map(|one| (one.name.as_str(), one.kind)).collect::<Vec<_>>(),
            [("blue0", Kind::Bridge), ("vethcable", Kind::PointToPoint)]
        );
        let ports: Vec<_> = all[0].ports.iter().map(|port| port.name.as_str()).collect();
        assert_eq!(ports, ["tap9", "vetha", "vethb"]);
        assert_eq!(all[0].ports[0].owner, None);
        let owner = all[0].ports[1].owner.clone().unwrap();
        assert_eq!((owner.vm.as_deref(), owner.leases.len()), (Some("default/left"), 2));
        assert_eq!(all[0].ports[1].stations, [Station { mac: "02:00:00:00:00:07".parse().unwrap(), vlan: Some(7) }]);
        assert!(all[0].answers_to("blue") && all[0].answers_to("blue0") && !all[1].answers_to("blue"));
        let json = serde_json::to_value(&all[1]).unwrap();
        assert_eq!((json["kind"].as_str(), json["mtuBytes"].as_u64().is_some()), (Some("pointToPoint"), true));
    }
}
