//! Routing on the host and in the pod: forwarding, routes, the way back, and other people's firewalls.

use std::net::IpAddr;

use hostnet::Facts;
use hostnet::facts::Link;
use hostnet::sysctl::Sysctl;
use terms::IfName;
use wiring::Family;

use super::{Case, Findings, NicView, Words, source};
use crate::explanation::{Code, Finding, Severity};
use crate::fib;
use crate::record::Network;
use crate::{firewall, refusing};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

pub(super) fn diagnose(case: &Case<'_>, findings: &mut Findings) {
    for family in FAMILIES.into_iter().filter(|family| case.nics.iter().any(|nic| nic.has(*family))) {
        pod_default(case, family, findings);
        if case.nics.iter().any(|nic| case.is_routed_by_host(nic, family)) {
            host_forwarding(case, family, findings);
            host_default(case, family, findings);
        }
    }
    for nic in &case.nics {
        way_to_pod(case, nic, findings);
        firewalls(case, nic, findings);
        refusing_rules(case, nic, findings);
        source::diagnose(case, nic, findings);
        way_back(case, nic, findings);
    }
}

fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

fn pod_default(case: &Case<'_>, family: Family, findings: &mut Findings) {
    let Some(pod) = case.pod else { return };
    if fib::default_route(pod, family == Family::V4).is_some() {
        return;
    }
    let Some(nic) = case.nics.iter().find(|nic| nic.has(family)) else { return };
    // A network without a way out may be meant so; one that was to have it is broken. A bridge-bound guest was told at start.
    let is_promised = promises_default(&case.seen.networks, family);
    let is_broken = nic.is_masqueraded() && is_promised;
    let severity = if is_broken { Severity::Error } else { Severity::Warning };
    let consequence = match nic.is_masqueraded() {
        true => "The guest reaches nothing beyond the pod's own network, and answers to others find no way back.",
        false => "The guest goes by what it was told at its start; started now, it would be told of no default route.",
    };
    let remedy = match is_promised {
        true => case.status().rewire(),
        false => "Give the network's configuration one (`routes` of its `ipam`), if it is to have one.".to_owned(),
    };
    let words = Words::new(format!("the pod has no {} default route", word(family)), consequence, remedy);
    findings.add(severity, Code::NoRoute, Some(&nic.interface.name), &nic.interface.pod_interface, words);
}

/// Whether a network's configuration speaks of a default route.
fn promises_default(networks: &[Network], family: Family) -> bool {
    let destination = if family == Family::V4 { "0.0.0.0/0" } else { "::/0" };
    networks.iter().any(|network| {
        let text = network.config.to_string();
        text.contains(&format!("\"{destination}\"")) || text.contains("\"isDefaultGateway\":true")
    })
}

fn host_forwarding(case: &Case<'_>, family: Family, findings: &mut Findings) {
    let setting = if family == Family::V4 { "ipv4/ip_forward" } else { "ipv6/conf/all/forwarding" };
    if case.seen.host.sysctl(&Sysctl::net(setting)) == Some("1") {
        return;
    }
    let words = Words::new(
        format!("the host does not forward {}", word(family)),
        "The VM reaches the host but nothing beyond it, and is not reachable from beyond.",
        format!("`sysctl -w net/{setting}=1`"),
    );
    findings.add(Severity::Error, Code::ForwardingOff, None, "host", words);
}

fn host_default(case: &Case<'_>, family: Family, findings: &mut Findings) {
    if fib::default_route(&case.seen.host, family == Family::V4).is_none() {
        let words = Words::new(
            format!("the host has no {} default route", word(family)),
            "The VM reaches no further than the host's own networks.",
            "Give the host a default route, if it is to have one.",
        );
        findings.add(Severity::Warning, Code::NoRoute, None, "host", words);
    }
}

/// The host's routes to the pod's addresses.
fn way_to_pod(case: &Case<'_>, nic: &NicView<'_>, findings: &mut Findings) {
    let Some(routed) = nic.routed().filter(|_| !nic.is_macvlan) else { return };
    // Its routes are for the bridge that the VM has been taken off.
    let is_elsewhere = |finding: &Finding| {
        finding.code == Code::WrongBridge && finding.nic.as_deref() == Some(nic.interface.name.as_str())
    };
    if findings.0.iter().any(is_elsewhere) {
        return;
    }
    // A bridge may join the pod to a network that the host has no part in.
    let has_part = case.seen.host.addresses_of(&routed.name).any(|held| !is_link_local(held.address.ip()));
    for address in &nic.addresses {
        let route = fib::route_to(&case.seen.host, *address);
        if route.is_some_and(|route| fib::leaves_by(route, routed)) || (nic.bridge.is_some() && !has_part) {
            continue;
        }
        let seen = match route {
            None => format!("the host has no route to {address}"),
            Some(route) => format!("the host's way to {address} is {route}, which does not lead to {}", routed.name),
        };
        let words = Words::new(
            seen,
            "Neither the host nor anybody beyond it reaches the VM at that address.",
            format!("`ip route replace {address} dev {}`, or wire it again: {}", routed.name, case.status().rewire()),
        );
        findings.add(Severity::Error, Code::NoRoute, Some(&nic.interface.name), "host", words);
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Whether a family's packets meet the host's forward hook: routed, or bridged where br_netfilter is on.
fn passes_forward(case: &Case<'_>, nic: &NicView<'_>, family: Family) -> bool {
    let setting = match family {
        Family::V4 => "bridge/bridge-nf-call-iptables",
        Family::V6 => "bridge/bridge-nf-call-ip6tables",
    };
    let is_bridged = nic.bridge.is_some() && case.seen.host.sysctl(&Sysctl::net(setting)) == Some("1");
    is_bridged || case.is_routed_by_host(nic, family)
}

fn firewalls(case: &Case<'_>, nic: &NicView<'_>, findings: &mut Findings) {
    for dropping in firewall::dropping(&case.seen.host.tables) {
        let link = nic.routed().map(|link| &link.name);
        let stuck: Vec<_> = nic
            .addresses
            .iter()
            .filter(|address| passes_forward(case, nic, Family::of(**address)))
            .filter(|address| dropping.concerns(**address) && !dropping.lets_through(**address, link))
            .collect();
        let Some(address) = stuck.first() else { continue };
        let tool = if address.is_ipv4() { "iptables" } else { "ip6tables" };
        let link = link.map(ToString::to_string).unwrap_or_default();
        let words = Words::new(
            format!(
                "{dropping} drops by default what the host forwards, and has no rule that accepts {address} or {link}"
            ),
            "What the VM sends beyond this host, and what others send it, is dropped; the host itself still reaches it.",
            format!("`{tool} -I FORWARD -i {link} -j ACCEPT` and `{tool} -I FORWARD -o {link} -j ACCEPT`"),
        );
        findings.add(Severity::Error, Code::ForwardDrop, Some(&nic.interface.name), "host", words);
    }
}

/// Rules that refuse all of the VM's packets, in chains that accept by default.
fn refusing_rules(case: &Case<'_>, nic: &NicView<'_>, findings: &mut Findings) {
    let link = nic.routed().map(|link| &link.name);
    let met = nic.addresses.iter().filter(|address| passes_forward(case, nic, Family::of(**address)));
    let mut refusals: Vec<_> = met
        .flat_map(|address| refusing::refusals(&case.seen.host.tables, *address, link))
        .map(|refusal| (refusal.to_string(), refusal.remedy(link.map(IfName::as_str).unwrap_or_default())))
        .collect();
    refusals.sort();
    refusals.dedup();
    for (rule, remedy) in refusals {
        let words = Words::new(
            format!("{rule} refuses what the host forwards to or from the VM"),
            "What the VM sends beyond this host, or what others send it, is lost; the host itself still reaches it.",
            format!("{remedy}, or a rule before it that accepts the VM's packets."),
        );
        findings.add(Severity::Error, Code::ForwardDrop, Some(&nic.interface.name), "host", words);
    }
}

/// Strict reverse-path filtering where the way back is another one. There is none for IPv6.
fn way_back(case: &Case<'_>, nic: &NicView<'_>, findings: &mut Findings) {
    if let Some(routed) = nic.routed().filter(|_| !nic.is_macvlan) {
        let sources = nic.addresses.iter().filter(|address| address.is_ipv4());
        for source in sources {
            let drops = case.seen.host_reverse_path_drops;
            strict(&case.seen.host, routed, *source, "", drops, &nic.interface.name, findings);
        }
    }
    let Some(pod) = case.pod.filter(|_| nic.is_masqueraded() && nic.has(Family::V4)) else { return };
    let drops = case.seen.pod_reverse_path_drops;
    let enter = format!("{} ", case.enter());
    if let Some(tap) = pod.link(&nic.tap) {
        for guest in nic.guest_addresses().into_iter().filter(IpAddr::is_ipv4) {
            strict(pod, tap, guest, &enter, drops, &nic.interface.name, findings);
        }
    }
    let Some(link) = nic.pod_link.filter(|link| fib::is_strict(pod, &link.name)) else { return };
    let default = fib::default_route(pod, true);
    // Without any default route that is what is wrong, and it was said.
    if default.is_none_or(|route| fib::leaves_by(route, link)) {
        return;
    }
    let words = Words::new(
        format!(
            "rp_filter is strict on {}, and the pod's default route leaves by another link ({drops} packets dropped so far)",
            link.name
        ),
        "Packets for this NIC from other networks are dropped.",
        format!("`{enter}sysctl -w net/ipv4/conf/{}/rp_filter=2`, and no stricter for all", link.name),
    );
    findings.add(Severity::Error, Code::RpFilter, Some(&nic.interface.name), &link.name, words);
}

fn strict(facts: &Facts, link: &Link, from: IpAddr, enter: &str, drops: u64, nic: &str, findings: &mut Findings) {
    let leads_back = fib::route_to(facts, from).is_some_and(|route| fib::leaves_by(route, link));
    if leads_back || !fib::is_strict(facts, &link.name) {
        return;
    }
    let words = Words::new(
        format!(
            "rp_filter is strict on {}, and the way to {from} leaves by another link ({drops} packets dropped so far)",
            link.name
        ),
        format!("What {from} sends is dropped when it enters by {}.", link.name),
        format!(
            "Mend the route, or `{enter}sysctl -w net/ipv4/conf/{}/rp_filter=2`, and no stricter for all",
            link.name
        ),
    );
    findings.add(Severity::Error, Code::RpFilter, Some(nic), &link.name, words);
}
