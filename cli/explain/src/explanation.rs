//! What `explain` has to say, as data.

use serde::{Deserialize, Serialize};
use terms::{IfName, MacAddr};
use wiring::Binding;

/// A VM's network from the host to the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// `metadata.namespace` of the VM.
    pub namespace: String,
    /// `metadata.name` of the VM.
    pub name: String,
    /// Where the VM is in its life.
    pub status: String,
    /// Why, when that needs saying.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The node that it runs on, in a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its network namespace, as `ip netns` names it.
    pub netns: String,
    /// One path per NIC, in the manifest's order.
    pub nics: Vec<NicPath>,
    /// What breaks traffic first, then what else is worth knowing.
    pub findings: Vec<Finding>,
}

impl Explanation {
    /// Whether anything is found that breaks traffic.
    pub fn is_broken(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }
}

/// The hops of one NIC, the host's first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NicPath {
    /// Name of the interface in the manifest.
    pub name: String,
    /// The binding of the wiring request.
    pub binding: Binding,
    /// The interface in the pod's namespace.
    pub pod_interface: IfName,
    /// The guest's address, if the launcher tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// From the host to the guest.
    pub hops: Vec<Hop>,
}

/// One station on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hop {
    /// What it is on the way.
    pub kind: HopKind,
    /// The device's name where it is one.
    pub name: String,
    /// Up, down, missing and the like, for devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu_bytes: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// What rules and servers have counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counters: Vec<Counted>,
    /// Anything else that is to be seen there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Hop {
    pub fn new(kind: HopKind, name: impl Into<String>) -> Self {
        let (state, mtu_bytes, traffic) = (None, None, None);
        let (addresses, counters, notes) = (Vec::new(), Vec::new(), Vec::new());
        Self { kind, name: name.into(), state, mtu_bytes, addresses, traffic, counters, notes }
    }
}

/// The kinds of stations, from the host to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HopKind {
    /// The host itself, which routes between its links.
    Host,
    /// The bridge that the host's end is a port of.
    HostBridge,
    /// The host's end of the pod's cable, or the link beneath a macvlan.
    HostLink,
    /// The pod's interface, in the VM's namespace.
    PodInterface,
    /// Our nft tables in the VM's namespace.
    Rules,
    /// The VM tap, whose frames are the guest's.
    Tap,
    /// The launcher behind the service tap: DHCP, DHCPv6, router advertisements.
    Service,
    /// The guest behind the tap.
    Guest,
}

impl HopKind {
    /// Whether it is in the VM's namespace or behind it.
    pub fn is_inside(self) -> bool {
        !matches!(self, Self::Host | Self::HostBridge | Self::HostLink)
    }
}

/// A device's counters as the guest sees them: what it received and sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    pub to_guest_packets: u64,
    pub to_guest_bytes: u64,
    pub from_guest_packets: u64,
    pub from_guest_bytes: u64,
    pub dropped_packets: u64,
}

/// A counter of a hop, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counted {
    pub name: String,
    pub count: u64,
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// It breaks traffic of the VM, or part of it.
    Error,
    /// It may, or breaks what few need.
    Warning,
}

/// A fault or a doubt, with what follows and what helps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// For programs; never changes its meaning.
    pub code: Code,
    pub severity: Severity,
    /// The NIC it concerns, if one alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nic: Option<String>,
    /// The name of the hop it is at.
    pub hop: String,
    pub seen: String,
    pub consequence: String,
    pub remedy: String,
}

/// All that can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Code {
    /// The VM does not run.
    NotRunning,
    /// Its processors are halted: nothing answers.
    Paused,
    /// Its launcher does not answer.
    LauncherSilent,
    /// Its network namespace is not there.
    NamespaceGone,
    /// A device is not there.
    LinkMissing,
    /// A device of the network is down.
    LinkDown,
    /// One of our taps is down.
    TapDown,
    /// The host's end of the cable is not a port of its network's bridge.
    WrongBridge,
    /// Nothing is plugged into a device.
    NoCarrier,
    /// A tap carries no mark, or not this wiring's.
    MarkMissing,
    /// The manifest keeps the guest's cable out.
    Unplugged,
    /// An MTU does not fit its neighbours'.
    WrongMtu,
    /// The pod has lost an address.
    AddressGone,
    /// One of our nft rules, sets or tables is not as it was made.
    RuleGone,
    /// There is a rule or chain in our tables that we did not make.
    RuleAdded,
    /// A kernel setting is not as it was made.
    SettingChanged,
    /// Forwarding is off where it must be on.
    ForwardingOff,
    /// A route is missing, or leads elsewhere.
    NoRoute,
    /// A firewall drops what the host forwards to and from the VM.
    ForwardDrop,
    /// Nothing masquerades what the VM sends beyond the host, though its network was configured so.
    MasqueradeGone,
    /// Strict reverse-path filtering drops what comes this way.
    RpFilter,
    /// No host answers for an address on a link.
    NeighbourUnresolved,
    /// Another Ethernet address than the VM's is known for its address.
    NeighbourForeign,
    /// The guest never asked for an address.
    DhcpNeverAsked,
    /// It asked and was never given one.
    DhcpNeverAnswered,
    /// The guest still boots: nothing can be said of it yet.
    GuestBoots,
    /// Several Ethernet addresses ask for the guest's one address.
    SeveralClients,
    /// The guest is not told of a part of its network.
    NotTold,
    /// A port that is not declared was asked for.
    PortNotDeclared,
    /// The guest refuses connections to a port.
    GuestRefuses,
    /// It does not answer at a port.
    GuestSilent,
    /// It sends from addresses that are not its own.
    ForeignSource,
}

#[cfg(test)]
mod tests {
    /// Other programs read the codes, so their page must list each of them.
    // spec: EXPL-3
    #[test]
    fn the_page_for_users_has_every_code_and_what_it_means() {
        let (page, source) = (include_str!("../../RUNNING.md"), include_str!("explanation.rs"));
        let (_, codes) = source.split_once("enum Code {\n").unwrap();
        let (codes, _) = codes.split_once("\n}").unwrap();
        let words: Vec<_> = codes.lines().map(str::trim).collect();
        let rows = words.chunks(2).map(|pair| {
            let meaning = pair[0].trim_start_matches("/// ").trim_end_matches('.');
            let (first, rest) = pair[1].trim_end_matches(',').split_at(1);
            format!("| `{}{rest}` | {meaning} |", first.to_lowercase())
        });
        let table: Vec<_> = page.lines().filter(|line| line.starts_with("| `") && !line.starts_with("| `/")).collect();
        assert_eq!(table, rows.collect::<Vec<_>>());
    }
}
