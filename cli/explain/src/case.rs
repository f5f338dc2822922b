//! The evidence put in order: what belongs to which NIC.

use std::net::IpAddr;

use binding::names::{self, RuleName};
use hostnet::Facts;
use hostnet::facts::{AddressScope, Link, LinkKind};
use hostnet::nft::{Family as TableFamily, RuleFacts, TableId};
use terms::IfName;
use wiring::{Binding, Family, GuestSubnet, Interface, Mark, NicKey};

use crate::evidence::Evidence;
use crate::launcher::{LeaseStatus, NicStatus};
use crate::record::VmStatus;
use protocol::control::State;

pub(crate) struct Case<'a> {
    pub(crate) seen: &'a Evidence,
    /// The VM's namespace, if it could be read.
    pub(crate) pod: Option<&'a Facts>,
    pub(crate) nics: Vec<NicView<'a>>,
}

pub(crate) struct NicView<'a> {
    pub(crate) interface: &'a Interface,
    pub(crate) tap: IfName,
    pub(crate) service_tap: IfName,
    /// The pod's interface; `None` if it is missing.
    pub(crate) pod_link: Option<&'a Link>,
    /// The other end of its cable on the host, or the link beneath it.
    pub(crate) host_end: Option<&'a Link>,
    /// The bridge which that end is a port of.
    pub(crate) bridge: Option<&'a Link>,
    /// Whether it shares a link of the host instead of having a cable.
    pub(crate) is_macvlan: bool,
    /// Under which others reach it.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) launcher: Option<&'a NicStatus>,
}

impl<'a> Case<'a> {
    pub(crate) fn of(seen: &'a Evidence) -> Self {
        let pod = seen.pod.as_ref().ok();
        let wired = seen.request.interfaces().iter().filter(|interface| interface.binding != Binding::Sriov);
        let nics = wired.filter_map(|interface| NicView::of(interface, seen, pod)).collect();
        Self { seen, pod, nics }
    }

    /// How the VM's namespace is entered by hand.
    pub(crate) fn enter(&self) -> String {
        format!("ip netns exec {}", self.netns())
    }

    pub(crate) fn netns(&self) -> String {
        let path = &self.seen.status.netns;
        path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
    }

    /// What its keeper knows of the VM, and the commands of remedies.
    pub(crate) fn status(&self) -> &'a VmStatus {
        &self.seen.status
    }

    /// Whether the guest's processors run now.
    pub(crate) fn runs(&self) -> bool {
        self.seen.launcher.as_ref().is_ok_and(|launcher| launcher.state == State::Running)
    }

    /// Whether the pod's gateway is the host itself.
    pub(crate) fn is_routed_by_host(&self, nic: &NicView<'_>, family: Family) -> bool {
        let Some((pod, routed)) = self.pod.zip(nic.routed()) else { return false };
        let gateways = pod.routes_of(&nic.interface.pod_interface).filter_map(|route| route.gateway);
        let of_host =
            |gateway: IpAddr| self.seen.host.addresses_of(&routed.name).any(|held| held.address.ip() == gateway);
        !nic.is_macvlan && gateways.into_iter().any(|gateway| Family::of(gateway) == family && of_host(gateway))
    }

    /// The packets that a rule with this comment has counted in a chain of ours, if it is there and counts.
    pub(crate) fn counted(&self, family: TableFamily, chain: &str, comment: &str) -> Option<u64> {
        let rule = self.rules(family, chain).find(|found| found.comment.as_deref() == Some(comment))?;
        rule.counter.map(|counter| counter.packets)
    }

    /// The packets that rules of a NIC have counted in a chain of ours.
    pub(crate) fn sum(&self, nic: &NicView<'_>, family: TableFamily, chain: &str, rules: &[RuleName]) -> u64 {
        let comment = |rule: &RuleName| rule.comment(&nic.interface.pod_interface);
        rules.iter().filter_map(|rule| self.counted(family, chain, &comment(rule))).sum()
    }

    /// The rules of a chain of ours.
    pub(crate) fn rules(&self, family: TableFamily, chain: &str) -> impl Iterator<Item = &'a RuleFacts> {
        let table = self.pod.and_then(|pod| pod.table(&TableId::new(family, names::TABLE)));
        let chain = table.and_then(|table| table.chains.iter().find(|found| found.name == chain));
        chain.into_iter().flat_map(|chain| &chain.rules)
    }
}

impl<'a> NicView<'a> {
    fn of(interface: &'a Interface, seen: &'a Evidence, pod: Option<&'a Facts>) -> Option<Self> {
        let key = NicKey::of(&interface.pod_interface).ok()?;
        let pod_link = pod.and_then(|pod| pod.link(&interface.pod_interface));
        let is_macvlan = pod_link.is_some_and(|link| matches!(link.kind, LinkKind::Macvlan(_) | LinkKind::Macvtap(_)));
        let host_end = pod_link.and_then(|link| host_end(link, &seen.host));
        let bridge = host_end.and_then(|link| seen.host.link(link.master.as_ref()?));
        let held = pod.into_iter().flat_map(|pod| pod.addresses_of(&interface.pod_interface));
        let held = held.filter(|held| held.scope == AddressScope::Global);
        let tap = match interface.binding {
            Binding::Masquerade => key.masquerade_tap(),
            Binding::Bridge | Binding::Sriov => key.bridge_tap(),
        };
        let mark = pod.and_then(|pod| pod.link(&tap)?.alias.as_deref()?.parse::<Mark>().ok());
        // Where the plugin had a choice, the guest has that address alone.
        let chosen = |address: IpAddr| mark.as_ref().and_then(|mark| mark.address(Family::of(address)));
        let usable = held.filter(|held| match chosen(held.address.ip()) {
            Some(chosen) => held.address.ip() == chosen,
            None => !held.flags.secondary,
        });
        let nics = seen.launcher.as_ref().map(|launcher| launcher.nics.as_slice()).unwrap_or_default();
        Some(Self {
            interface,
            tap,
            service_tap: key.service_tap(),
            pod_link,
            host_end,
            bridge,
            is_macvlan,
            addresses: usable.map(|held| held.address.ip()).collect(),
            launcher: nics.iter().find(|nic| nic.name == interface.name),
        })
    }

    /// Packets that came from the guest.
    pub(super) fn sent_packets(&self, case: &Case<'_>) -> u64 {
        let tap = case.pod.and_then(|pod| pod.link(&self.tap));
        tap.and_then(|tap| tap.statistics.as_ref()).map_or(0, |statistics| statistics.rx_packets)
    }

    /// Whether the manifest says `state: down`.
    pub(crate) fn is_unplugged(&self) -> bool {
        self.launcher.is_some_and(|nic| nic.link_down)
    }

    pub(crate) fn is_masqueraded(&self) -> bool {
        self.interface.binding == Binding::Masquerade
    }

    /// Which families the pod's interface has.
    pub(crate) fn has(&self, family: Family) -> bool {
        self.addresses.iter().any(|address| Family::of(*address) == family)
    }

    /// Addresses in the guest: its subnet's under masquerade, else the pod's.
    pub(crate) fn guest_addresses(&self) -> Vec<IpAddr> {
        if !self.is_masqueraded() {
            return self.addresses.clone();
        }
        let v4 = GuestSubnet::v4(self.interface.subnet()).filter(|_| self.has(Family::V4));
        let v6 = GuestSubnet::v6(self.interface.subnet6()).filter(|_| self.has(Family::V6));
        v4.into_iter().chain(v6).map(|subnet| subnet.guest.ip()).collect()
    }

    /// The next routers of the pod on this NIC.
    pub(crate) fn gateways(&self, pod: Option<&Facts>) -> Vec<IpAddr> {
        let routes = pod.into_iter().flat_map(|pod| pod.routes_of(&self.interface.pod_interface));
        routes.filter_map(|route| route.gateway).collect()
    }

    /// Where the host routes to: the bridge if there is one, else the cable's end.
    pub(crate) fn routed(&self) -> Option<&'a Link> {
        self.bridge.or(self.host_end)
    }

    /// A family's lease as the launcher tells of it.
    pub(crate) fn lease(&self, family: Family) -> Option<&'a LeaseStatus> {
        let service = self.launcher?.service.as_ref()?;
        match family {
            Family::V4 => service.ipv4.as_ref(),
            Family::V6 => service.ipv6.as_ref(),
        }
    }
}

/// A veth's peer is only believed if it says the same of this end: numbers are per namespace.
fn host_end<'a>(link: &Link, host: &'a Facts) -> Option<&'a Link> {
    let other = host.link_at(link.peer_index?)?;
    match link.kind {
        LinkKind::Veth => (other.kind == LinkKind::Veth && other.peer_index == Some(link.index)).then_some(other),
        LinkKind::Macvlan(_) | LinkKind::Macvtap(_) => Some(other),
        _ => None,
    }
}
