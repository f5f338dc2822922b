//! The guest itself: does anybody answer for its addresses, and at its ports.

use std::net::IpAddr;

use hostnet::Facts;
use hostnet::facts::NeighbourState;
use terms::IfName;
use wiring::Family;

use super::{Case, Findings, NicView, Words};
use crate::evidence::{From, Outcome, Probe};
use crate::explanation::{Code, Severity};

pub(super) fn diagnose(case: &Case<'_>, nic: &NicView<'_>, findings: &mut Findings) {
    neighbours(case, nic, findings);
    foreign_entries(case, nic, findings);
    ports(case, nic, findings);
}

/// A NIC whose link the manifest keeps down.
pub(super) fn unplugged(nic: &NicView<'_>, findings: &mut Findings) {
    let name = &nic.interface.name;
    let words = Words::new(
        format!("the manifest says `state: down` of interface {name}"),
        "The guest sees a NIC without a cable and has no network there.",
        "Say `state: up` in the manifest, or leave it out, if it is to have one.",
    );
    findings.add(Severity::Warning, Code::Unplugged, Some(name), "guest", words);
}

fn neighbours(case: &Case<'_>, nic: &NicView<'_>, findings: &mut Findings) {
    let name = Some(nic.interface.name.as_str());
    if let Some(pod) = case.pod.filter(|_| nic.is_masqueraded()) {
        for address in unresolved(pod, &nic.tap, &nic.guest_addresses()) {
            let words = Words::new(
                format!("no host answers for the guest's address {address} on {}", nic.tap),
                "What is sent to the guest in that family is dropped.",
                "See whether the guest's NIC is up and has that address.",
            );
            findings.add(missing(nic, address), Code::NeighbourUnresolved, name, &nic.tap, words);
        }
        for address in unresolved(pod, &nic.interface.pod_interface, &nic.gateways(Some(pod))) {
            let words = Words::new(
                format!("no host answers for the pod's gateway {address} on {}", nic.interface.pod_interface),
                "What the guest sends beyond the pod's own network is dropped.",
                "See whether the host or router that has it is up.",
            );
            findings.add(Severity::Error, Code::NeighbourUnresolved, name, &nic.interface.pod_interface, words);
        }
    }
    // A macvlan and its parent exchange no packets: the host has no neighbour entries for such a VM.
    let Some(routed) = nic.routed().filter(|_| !nic.is_macvlan) else { return };
    for address in unresolved(&case.seen.host, &routed.name, &nic.addresses) {
        let (who, severity) = match nic.is_masqueraded() {
            true => ("the pod", Severity::Error),
            false => ("the guest", missing(nic, address)),
        };
        let words = Words::new(
            format!("no host answers for {address} on {} of the host", routed.name),
            "What is sent to the VM at that address is dropped.",
            format!("See whether {who} has that address and every device on the way is up."),
        );
        findings.add(severity, Code::NeighbourUnresolved, name, &routed.name, words);
    }
}

/// Neighbour entries on the host that map the VM's addresses to another Ethernet address than that of its NIC: another host has
/// the same address, or the entry was added by hand for a VM that is gone.
fn foreign_entries(case: &Case<'_>, nic: &NicView<'_>, findings: &mut Findings) {
    let Some(routed) = nic.routed().filter(|_| !nic.is_macvlan) else { return };
    // Bridge-bound, the guest has the pod interface's.
    let Some(own) = nic.pod_link.and_then(|link| link.mac) else { return };
    // Entries in other states are stale: the kernel will resolve them again.
    let is_sure = |state| matches!(state, NeighbourState::Permanent | NeighbourState::Reachable);
    let known = case.seen.host.neighbours.iter().filter(|known| known.link == routed.name && is_sure(known.state));
    for known in known.filter(|known| nic.addresses.contains(&known.address)) {
        let Some(mac) = known.mac.filter(|mac| *mac != own) else { continue };
        let whose = match known.state {
            NeighbourState::Permanent => "was set by hand",
            _ => "answers for it",
        };
        let words = Words::new(
            format!("on {} of the host {mac} {whose} as {}, and the VM's NIC is {own}", routed.name, known.address),
            "What the host sends to the VM at that address reaches another host or none.",
            format!(
                "`ip neigh del {} dev {}`; if it comes back, find who else has that address.",
                known.address, routed.name
            ),
        );
        findings.add(Severity::Error, Code::NeighbourForeign, Some(&nic.interface.name), &routed.name, words);
    }
}

/// A guest may do without a family that it never took an address of, if it has the other.
fn missing(nic: &NicView<'_>, address: IpAddr) -> Severity {
    let holds = |family: Family| nic.lease(family).is_some_and(|lease| lease.leased);
    let (own, other) = match Family::of(address) {
        Family::V4 => (Family::V4, Family::V6),
        Family::V6 => (Family::V6, Family::V4),
    };
    if !holds(own) && holds(other) { Severity::Warning } else { Severity::Error }
}

fn unresolved(facts: &Facts, link: &IfName, among: &[IpAddr]) -> Vec<IpAddr> {
    let is_lost = |state: NeighbourState| matches!(state, NeighbourState::Failed | NeighbourState::Incomplete);
    let lost = facts.neighbours.iter().filter(|one| one.link == *link && is_lost(one.state));
    let mut lost: Vec<_> = lost.map(|one| one.address).filter(|address| among.contains(address)).collect();
    lost.sort();
    lost.dedup();
    lost
}

fn ports(case: &Case<'_>, nic: &NicView<'_>, findings: &mut Findings) {
    let probes: Vec<_> =
        case.seen.probes.iter().filter(|probe| probe.pod_interface == nic.interface.pod_interface).collect();
    let mut ports: Vec<_> = probes.iter().map(|probe| probe.port).collect();
    ports.sort_unstable();
    ports.dedup();
    for port in ports {
        let of_port: Vec<_> = probes.iter().copied().filter(|probe| probe.port == port).collect();
        diagnose_port(nic, port, &of_port, findings);
    }
}

fn diagnose_port(nic: &NicView<'_>, port: u16, probes: &[&Probe], findings: &mut Findings) {
    let name = Some(nic.interface.name.as_str());
    let is_declared =
        nic.interface.ports.is_empty() || nic.interface.ports.iter().any(|declared| declared.port == port);
    // The last step alone tells what the guest does; where there is no such way, the whole way has to.
    let last_step = if nic.is_masqueraded() { From::Pod } else { From::Host };
    let (inner, outer): (Vec<_>, Vec<_>) = probes.iter().copied().partition(|probe| probe.from == last_step);
    let at = |wanted: &Outcome, among: &[&Probe]| -> Vec<String> {
        let found = among.iter().filter(|probe| probe.outcome == *wanted);
        found.map(|probe| probe.address.to_string()).collect()
    };
    let refused = at(&Outcome::Refused, &inner);
    if !refused.is_empty() {
        let words = Words::new(
            format!("the guest refuses connections to port {port} at {}", refused.join(", ")),
            "The path is good; no process listens on that port.",
            "Start the server in the guest, or make it listen on all of the guest's addresses and not on its loopback alone.",
        );
        findings.add(Severity::Error, Code::GuestRefuses, name, "guest", words);
    }
    let silent = at(&Outcome::Silent, &inner);
    let unreachable = inner.iter().filter_map(|probe| match &probe.outcome {
        Outcome::Unreachable(why) => Some(format!("{}: {why}", probe.address)),
        _ => None,
    });
    let lost: Vec<_> = silent.into_iter().chain(unreachable).collect();
    if !lost.is_empty() {
        let words = Words::new(
            format!("nothing answers at port {port} of the guest ({})", lost.join("; ")),
            "The guest is still booting or hangs, its firewall drops, or the way is broken as said elsewhere.",
            "See what else is found here; then look into the guest.",
        );
        findings.add(Severity::Error, Code::GuestSilent, name, "guest", words);
    }
    // An answer on the last step but not on the whole path means that the fault is in between.
    let stuck = outer.iter().filter(|probe| probe.outcome != Outcome::Answered);
    let stuck: Vec<_> = stuck.map(|probe| probe.address.to_string()).collect();
    if is_declared && !stuck.is_empty() && inner.iter().all(|probe| probe.outcome == Outcome::Answered) {
        let words = Words::new(
            format!("the guest answers at port {port}, but not on the way from the host by {}", stuck.join(", ")),
            "Others do not reach it.",
            "See what else is found here: rules, routes, devices.",
        );
        findings.add(Severity::Error, Code::GuestSilent, name, "rules", words);
    }
}
