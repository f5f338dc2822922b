//! CHECK: what is not as ADD made it, in words.

use hostnet::facts::{Address, Link, LinkKind, Route};
use hostnet::{Facts, PairFacts};
use terms::IfName;

use super::desired::{DEFAULT_VLAN, Desired};
use super::error::Refusal;
use super::rules::CHECKED_GROUP;
use super::{existing, uplink};

/// Compares an attachment with the facts of both namespaces. What others may change is not looked at: Ethernet addresses on
/// the host, more addresses and routes, the MTU of the pod's link.
pub(crate) fn differences(desired: &Desired<'_>, facts: &PairFacts) -> Result<Vec<String>, Refusal> {
    let mut found = Vec::new();
    if desired.conf.point_to_point {
        cable(desired, &facts.host, &mut found);
    } else {
        bridge(desired, &facts.host, &mut found)?;
    }
    forwarding(&facts.host, &mut found);
    port(desired, &facts.host, &mut found);
    pod(desired, facts, &mut found);
    if !desired.elements.is_empty() {
        found.extend(desired.elements.missing(&facts.host));
    }
    Ok(found)
}

fn bridge(desired: &Desired<'_>, host: &Facts, found: &mut Vec<String>) -> Result<(), Refusal> {
    let name = &desired.conf.bridge;
    let Some(link) = existing::bridge(desired, host)? else {
        found.push(format!("bridge {name} is not there"));
        return Ok(());
    };
    if !link.up {
        found.push(format!("bridge {name} is down"));
    }
    if desired.conf.promiscuous && !link.promiscuous {
        found.push(format!("bridge {name} is not promiscuous"));
    }
    let (wanted, settings) = (&desired.conf.settings, link.bridge.unwrap_or_default());
    let mut differs = |what: &str, is_other: bool| {
        if is_other {
            found.push(format!("{what} of bridge {name} is not as configured"));
        }
    };
    differs("multicastSnooping", wanted.multicast_snooping.is_some_and(|value| value != settings.multicast_snooping));
    differs("multicastQuerier", wanted.multicast_querier.is_some_and(|value| value != settings.multicast_querier));
    differs("groupFwdMask", wanted.group_fwd_mask.is_some_and(|value| value != settings.group_fwd_mask));
    differs("ageingTimeSeconds", wanted.ageing_seconds.is_some_and(|value| value != settings.ageing_seconds));
    found.extend(uplink::differences(desired, host));
    let gateway_link = desired.gateway_link()?;
    let lacks = |wanted: &&terms::IpNetwork| !host.addresses_of(&gateway_link).any(|held| held.address == **wanted);
    found.extend(desired.gateways.iter().filter(lacks).map(|wanted| format!("{gateway_link} has no address {wanted}")));
    Ok(())
}

fn cable(desired: &Desired<'_>, host: &Facts, found: &mut Vec<String>) {
    let end = &desired.host_end;
    let held = |wanted: &&Address| host.addresses_of(end).any(|held| held.address == wanted.address);
    let lost = desired.cable.addresses.iter().filter(|wanted| !held(wanted));
    found.extend(lost.map(|wanted| format!("the host's end {end} has no address {}", wanted.address)));
    let lost = desired.cable.routes.iter().filter(|wanted| !host.routes.iter().any(|held| leads_alike(wanted, held)));
    found.extend(lost.map(|wanted| format!("the host has no {wanted}")));
}

fn forwarding(host: &Facts, found: &mut Vec<String>) {
    for is_ipv4 in [true, false] {
        let key = existing::forwarding(is_ipv4);
        if host.sysctl(&key).is_some_and(|value| value == "0") {
            found.push(format!("the host does not forward: {key} is 0"));
        }
    }
}

fn port(desired: &Desired<'_>, host: &Facts, found: &mut Vec<String>) {
    let name = &desired.host_end;
    let Some(link) = host.link(name) else {
        found.push(format!("the host's end {name} is not there"));
        return;
    };
    if !link.up {
        found.push(format!("the host's end {name} is down"));
    }
    let expected = (!desired.conf.point_to_point).then_some(&desired.conf.bridge);
    if link.master.as_ref() != expected {
        let words =
            |master: Option<&IfName>| master.map_or("no bridge".to_owned(), |master| format!("bridge {master}"));
        let (is, expected) = (words(link.master.as_ref()), words(expected));
        found.push(format!("the host's end {name} is in {is}, expected {expected}"));
    }
    let port = link.port.unwrap_or_default();
    for (what, is, wanted) in
        [("hairpin", port.hairpin, desired.conf.hairpin), ("isolated", port.isolated, desired.conf.isolated)]
    {
        if is != wanted {
            found.push(format!("{what} of the host's end {name} is {is}, expected {wanted}"));
        }
    }
    if let Some(mtu) = desired.conf.mtu.filter(|mtu| mtu.value() != link.mtu_bytes) {
        found.push(format!("the host's end {name} has MTU {}, expected {mtu}", link.mtu_bytes));
    }
    if desired.conf.checks_mac && link.group != CHECKED_GROUP {
        found.push(format!("the host's end {name} is in group {}, expected {CHECKED_GROUP}", link.group));
    }
    vlans(desired, link, host, found);
}

fn vlans(desired: &Desired<'_>, link: &Link, host: &Facts, found: &mut Vec<String>) {
    if !desired.conf.has_vlans() {
        return;
    }
    let name = &link.name;
    for wanted in desired.vlans() {
        let holds = |number: u16| {
            let of = |held: &&hostnet::facts::PortVlans| {
                (held.first.value()..=held.last.value()).contains(&number)
                    && (held.pvid, held.untagged) == (wanted.pvid, wanted.untagged)
            };
            host.vlans_of(name).any(|held| of(&held))
        };
        if !(wanted.first.value()..=wanted.last.value()).all(holds) {
            found.push(format!("the host's end {name} is not in {wanted}"));
        }
    }
    let is_default = |held: &hostnet::facts::PortVlans| u64::from(held.first.value()) == DEFAULT_VLAN;
    let asks_default = desired.vlans().iter().any(is_default);
    if !desired.conf.keeps_default_vlan && !asks_default && host.vlans_of(name).any(is_default) {
        found.push(format!("the host's end {name} is in VLAN {DEFAULT_VLAN}"));
    }
}

fn pod(desired: &Desired<'_>, facts: &PairFacts, found: &mut Vec<String>) {
    let name = &desired.pod_end;
    let Some(link) = facts.pod.link(name) else {
        found.push(format!("{name} is not in the pod"));
        return;
    };
    if link.kind != LinkKind::Veth {
        found.push(format!("{name} is no end of a cable"));
    } else if link.peer_index != facts.host.link(&desired.host_end).map(|end| end.index) {
        found.push(format!("{name} is not the other end of {}", desired.host_end));
    }
    if link.up == desired.conf.leaves_down {
        let (is, expected) = if link.up { ("up", "down") } else { ("down", "up") };
        found.push(format!("{name} is {is}, expected {expected}"));
    }
    if link.mac != Some(desired.pod_mac) {
        let mac = link.mac.map_or("none".to_owned(), |mac| mac.to_string());
        found.push(format!("{name} has Ethernet address {mac}, expected {}", desired.pod_mac));
    }
    for wanted in &desired.addresses {
        match facts.pod.addresses_of(name).find(|held| held.address == wanted.address) {
            Some(Address { flags, .. }) if flags.dad_failed => {
                found.push(format!("address {} of {name} is a duplicate", wanted.address));
            }
            Some(_) => {}
            None => found.push(format!("{name} has no address {}", wanted.address)),
        }
    }
    let lost = desired.routes.iter().filter(|wanted| !facts.pod.routes.iter().any(|held| leads_alike(wanted, held)));
    found.extend(lost.map(|wanted| format!("the pod has no {wanted}")));
}

/// A later plugin may have given the route a metric.
fn leads_alike(wanted: &Route, held: &Route) -> bool {
    wanted.destination == held.destination
        && wanted.table == held.table
        && wanted.link == held.link
        && wanted.gateway == held.gateway
        && wanted.metric.is_none_or(|metric| held.metric == Some(metric))
}
