//! Names in the nft tables of a wiring: of tables, chains and sets, and the comments of rules, by which readers of counters find
//! them.

use terms::IfName;
use wiring::Family;

/// The name of our tables in every family.
pub const TABLE: &str = "tapvisor";

/// Drops what a guest may not send: in the `inet` table for IP, in the `arp` table for ARP.
pub const GUARD: &str = "guard";

/// Drops packets that belong to no connection.
pub const INVALID: &str = "invalid";

/// Translates destinations of packets from the network and from the guest.
pub const PREROUTING: &str = "prerouting";

/// Translates destinations of packets from the pod's own processes.
pub(crate) const OUTPUT: &str = "output";

/// The chain that masquerades what the guest sends.
pub const POSTROUTING: &str = "postrouting";

/// Bounds how many neighbours of the pod a guest begins to talk to.
pub(crate) const NEIGHBOURS: &str = "neighbours";

/// Keeps the namespace silent on interfaces that are a guest's.
pub(crate) const SILENT: &str = "silent";

/// The comment of the rule of that chain, which is no NIC's own.
pub(crate) const SILENT_RULE: &str = "the namespace's own";

/// The set of devices on which the namespace is silent.
pub(crate) const SILENT_SET: &str = "guest-devices";

/// The set of the ports of Istio's side-car.
pub(crate) const MESH_SET: &str = "mesh-ports";

/// The chain at the ingress of a NIC's VM tap (`netdev` table).
#[must_use]
pub fn from_vm(pod_interface: &IfName) -> String {
    of_nic("vm-", pod_interface)
}

/// The chain at the ingress of a bridge-bound pod interface (`netdev` table).
#[must_use]
pub fn from_network(pod_interface: &IfName) -> String {
    of_nic("nic-", pod_interface)
}

/// The chain at the ingress of a NIC's service tap (`netdev` table).
pub(crate) fn from_launcher(pod_interface: &IfName) -> String {
    of_nic("svc-", pod_interface)
}

/// The chain for what Istio's side-car sends to a guest.
pub(crate) fn mesh_chain(pod_interface: &IfName) -> String {
    of_nic("mesh-", pod_interface)
}

/// The set of a NIC's declared ports.
pub(crate) fn port_set(pod_interface: &IfName) -> String {
    of_nic("ports-", pod_interface)
}

/// The set of link-local addresses that a guest uses.
pub(crate) fn link_local_set(pod_interface: &IfName) -> String {
    of_nic("local6-", pod_interface)
}

/// The set of a pod interface's addresses of a family.
pub(crate) fn pod_set(pod_interface: &IfName, family: Family) -> String {
    of_nic(by_family(family, "pod4-", "pod6-"), pod_interface)
}

/// The set of the networks on the pod interface's link.
pub(crate) fn link_set(pod_interface: &IfName, family: Family) -> String {
    of_nic(by_family(family, "link4-", "link6-"), pod_interface)
}

/// The set of destinations on that link that a guest talks to.
pub(crate) fn peer_set(pod_interface: &IfName, family: Family) -> String {
    of_nic(by_family(family, "peers4-", "peers6-"), pod_interface)
}

/// Whether a set holds a pod interface's addresses or their networks.
pub(crate) fn is_pod_set(name: &str) -> bool {
    ["pod4-", "pod6-", "link4-", "link6-"].iter().any(|start| name.starts_with(start))
}

/// The comment of a rule that sends frames to a device.
#[must_use]
pub fn to_device(pod_interface: &IfName, device: &IfName) -> String {
    joined([pod_interface.as_str(), ": to ", device.as_str()])
}

/// What a rule of a NIC is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the text of each is right below")]
pub enum RuleName {
    ToLoopbackNetwork,
    NotFromGuest(Family),
    FamilyAbsent(Family),
    GuestNeighbour(Family),
    GuestLinkLocalNeighbour,
    GuestLinkLocalAddress,
    ExcessLinkLocalAddresses,
    ExcessDiscovery,
    ArpFamilyAbsent,
    ArpNotFromGuest,
    ExcessArp,
    NoConnectionFromGuest,
    NoConnectionFromNetwork,
    Inbound(Family),
    Ssh(Family),
    Ping(Family),
    Undeclared(Family),
    GuestToItself(Family),
    Loopback(Family),
    SideCar(Family),
    SideCarOwn,
    FromSideCar(Family),
    Outbound(Family),
    PodNeighbour(Family),
    ExcessPodNeighbours(Family),
    Dhcp(Family),
    RouterSolicitation,
    VirtualRouterSolicitation,
    GatewayAnswer,
    ToLauncher,
    NetworkAdvertisements,
    GatewaySolicitation,
}

impl RuleName {
    /// The comment of the rule of this NIC.
    #[must_use]
    pub fn comment(self, pod_interface: &IfName) -> String {
        let (text, family) = self.text();
        let family = family.map_or("", |family| by_family(family, " V4", " V6"));
        joined([pod_interface.as_str(), ": ", text, family])
    }

    /// The text, and the family that follows it.
    fn text(self) -> (&'static str, Option<Family>) {
        let plain = |text| (text, None);
        match self {
            Self::ToLoopbackNetwork => plain("to 127.0.0.0/8"),
            Self::NotFromGuest(Family::V4) => plain("not from the guest's IPv4 address"),
            Self::NotFromGuest(Family::V6) => plain("not from the guest's IPv6 addresses"),
            Self::FamilyAbsent(Family::V4) => plain("IPv4, which the pod has not"),
            Self::FamilyAbsent(Family::V6) => plain("IPv6, which the pod has not"),
            Self::GuestNeighbour(family) => ("to a neighbour of the guest", Some(family)),
            Self::GuestLinkLocalNeighbour => plain("to a link-local neighbour of the guest"),
            Self::GuestLinkLocalAddress => plain("a link-local address of the guest"),
            Self::ExcessLinkLocalAddresses => plain("too many link-local addresses"),
            Self::ExcessDiscovery => plain("too much neighbour discovery"),
            Self::ArpFamilyAbsent => plain("ARP, but the pod has no IPv4"),
            Self::ArpNotFromGuest => plain("ARP not from the guest's address"),
            Self::ExcessArp => plain("too much ARP"),
            Self::NoConnectionFromGuest => plain("of no connection, from the guest"),
            Self::NoConnectionFromNetwork => plain("of no connection, from the network"),
            Self::Inbound(family) => ("inbound", Some(family)),
            Self::Ssh(family) => ("ssh", Some(family)),
            Self::Ping(family) => ("ping", Some(family)),
            Self::Undeclared(family) => ("undeclared", Some(family)),
            Self::GuestToItself(family) => ("guest to itself", Some(family)),
            Self::Loopback(family) => ("loopback", Some(family)),
            Self::SideCar(family) => ("side-car", Some(family)),
            Self::SideCarOwn => plain("the side-car's own"),
            Self::FromSideCar(family) => ("from the side-car", Some(family)),
            Self::Outbound(family) => ("outbound", Some(family)),
            Self::PodNeighbour(family) => ("a neighbour of the pod", Some(family)),
            Self::ExcessPodNeighbours(family) => ("too many neighbours of the pod", Some(family)),
            Self::Dhcp(Family::V4) => plain("DHCPv4"),
            Self::Dhcp(Family::V6) => plain("DHCPv6"),
            Self::RouterSolicitation => plain("router solicitation"),
            Self::VirtualRouterSolicitation => plain("where is the router"),
            Self::GatewayAnswer => plain("the gateway's answer"),
            Self::ToLauncher => plain("to the launcher"),
            Self::NetworkAdvertisements => plain("the network's router advertisements"),
            Self::GatewaySolicitation => plain("where is the gateway"),
        }
    }
}

/// `concat` of strings asks for their lengths twice and copies through an iterator: a wiring has dozens of names.
fn joined<const N: usize>(parts: [&str; N]) -> String {
    let mut text = String::with_capacity(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| text.push_str(part));
    text
}

fn of_nic(prefix: &str, pod_interface: &IfName) -> String {
    joined([prefix, pod_interface.as_str()])
}

fn by_family(family: Family, v4: &'static str, v6: &'static str) -> &'static str {
    if family == Family::V4 { v4 } else { v6 }
}
