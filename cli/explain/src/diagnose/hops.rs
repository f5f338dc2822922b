//! The stations of a NIC's way, from the host to the guest.

use binding::names::{self, RuleName};
use hostnet::Facts;
use hostnet::facts::Link;
use hostnet::nft::Family as TableFamily;
use hostnet::sysctl::Sysctl;
use terms::IfName;
use wiring::{Family, Mark};

use super::{Case, NicView};
use crate::explanation::{Counted, Hop, HopKind, Traffic};
use crate::fib;

/// In which direction a device's "sent" goes.
#[derive(Clone, Copy)]
enum Faces {
    /// It sends to the guest.
    Guest,
    /// It sends away from the guest.
    Network,
}

/// All stations, the host first.
pub(super) fn of(case: &Case<'_>, nic: &NicView<'_>) -> Vec<Hop> {
    let host = &case.seen.host;
    let mut hops = vec![host_hop(host)];
    let bridge = nic.bridge.map(|link| device(HopKind::HostBridge, link, Faces::Guest, host));
    hops.extend(bridge.map(|hop| Hop { traffic: None, ..hop }));
    // What passes a shared link is not the guest's alone.
    let end = nic.host_end.map(|link| device(HopKind::HostLink, link, Faces::Guest, host));
    hops.extend(end.map(|hop| if nic.is_macvlan { Hop { traffic: None, ..hop } } else { hop }));
    let Some(pod) = case.pod else { return hops };
    let named = |kind, name: &IfName, faces| match pod.link(name) {
        Some(link) => device(kind, link, faces, pod),
        None => Hop { state: Some("missing".to_owned()), ..Hop::new(kind, name.to_string()) },
    };
    hops.push(named(HopKind::PodInterface, &nic.interface.pod_interface, Faces::Network));
    hops.push(rules(case, nic));
    let mut tap = named(HopKind::Tap, &nic.tap, Faces::Guest);
    tap.notes.extend(pod.link(&nic.tap).map(|link| mark(link, case)));
    hops.push(tap);
    if let Some(service) = nic.launcher.and_then(|nic| nic.service.as_ref()) {
        let mut hop = named(HopKind::Service, &nic.service_tap, Faces::Guest);
        (hop.traffic, hop.mtu_bytes) = (None, None);
        for (family, lease) in [("DHCPv4", &service.ipv4), ("DHCPv6", &service.ipv6)] {
            let Some(lease) = lease else { continue };
            let counts = [("asked", lease.asked), ("answered", lease.answered), ("granted", lease.grants)];
            hop.counters.extend(counts.map(|(what, count)| counted(format!("{family} {what}"), count)));
        }
        hop.counters.push(counted("routers solicited".to_owned(), service.router_solicitations));
        hop.counters.push(counted("advertised".to_owned(), service.router_advertisements));
        hops.push(hop);
    }
    hops.push(guest(case, nic));
    hops
}

fn host_hop(host: &Facts) -> Hop {
    let mut hop = Hop::new(HopKind::Host, "host");
    for (family, setting) in [("IPv4", "ipv4/ip_forward"), ("IPv6", "ipv6/conf/all/forwarding")] {
        let is_on = host.sysctl(&Sysctl::net(setting)) == Some("1");
        let default = fib::default_route(host, family == "IPv4");
        let by = default.and_then(|route| route.link.as_ref());
        let by = by.map_or_else(|| "no default route".to_owned(), |link| format!("default by {link}"));
        hop.notes.push(format!("{family} {}, {by}", if is_on { "forwarded" } else { "not forwarded" }));
    }
    hop
}

fn device(kind: HopKind, link: &Link, faces: Faces, facts: &Facts) -> Hop {
    let state = match (link.up, link.carrier) {
        (true, true) => "up",
        (true, false) => "no carrier",
        (false, _) => "down",
    };
    let held = facts.addresses_of(&link.name).map(|held| held.address.to_string());
    Hop {
        state: Some(state.to_owned()),
        mtu_bytes: Some(link.mtu_bytes),
        addresses: held.filter(|address| !address.starts_with("fe80:")).collect(),
        traffic: link.statistics.map(|seen| match faces {
            Faces::Guest => Traffic {
                to_guest_packets: seen.tx_packets,
                to_guest_bytes: seen.tx_bytes,
                from_guest_packets: seen.rx_packets,
                from_guest_bytes: seen.rx_bytes,
                dropped_packets: seen.rx_dropped + seen.tx_dropped,
            },
            Faces::Network => Traffic {
                to_guest_packets: seen.rx_packets,
                to_guest_bytes: seen.rx_bytes,
                from_guest_packets: seen.tx_packets,
                from_guest_bytes: seen.tx_bytes,
                dropped_packets: seen.rx_dropped + seen.tx_dropped,
            },
        }),
        ..Hop::new(kind, link.name.to_string())
    }
}

fn mark(tap: &Link, case: &Case<'_>) -> String {
    let mark = tap.alias.as_deref().and_then(|alias| alias.parse::<Mark>().ok());
    match mark {
        Some(mark) if mark.digest() == case.seen.request.digest() => "marked".to_owned(),
        Some(_) => "marked for another request".to_owned(),
        None => "not marked".to_owned(),
    }
}

/// Counters of the rules that matter on this NIC's way, as sums over both families.
fn rules(case: &Case<'_>, nic: &NicView<'_>) -> Hop {
    let pod = &nic.interface.pod_interface;
    let mut hop = Hop::new(HopKind::Rules, "rules");
    let both = |name: fn(Family) -> RuleName| [Family::V4, Family::V6].map(name);
    let mut add = |name: &str, family, chain: &str, rules: &[RuleName]| {
        hop.counters.push(counted(name.to_owned(), case.sum(nic, family, chain, rules)));
    };
    let from_vm = names::from_vm(pod);
    if nic.is_masqueraded() {
        // Address translation sees the first packet of a connection alone.
        let inbound = [both(RuleName::Inbound), both(RuleName::Ssh), both(RuleName::Ping)].concat();
        add("connections in", TableFamily::Inet, names::PREROUTING, &inbound);
        add("to ports not declared", TableFamily::Inet, names::PREROUTING, &both(RuleName::Undeclared));
        add("connections out", TableFamily::Inet, names::POSTROUTING, &both(RuleName::Outbound));
        let guarded =
            [&[RuleName::ToLoopbackNetwork], &both(RuleName::NotFromGuest)[..], &both(RuleName::FamilyAbsent)];
        add("guarded off", TableFamily::Inet, names::GUARD, &guarded.concat());
        let lost = [RuleName::NoConnectionFromGuest, RuleName::NoConnectionFromNetwork];
        add("of no connection", TableFamily::Inet, names::INVALID, &lost);
    } else {
        let redirected = [
            ("led to the guest", names::from_network(pod), names::to_device(pod, &nic.tap)),
            ("led from the guest", from_vm.clone(), names::to_device(pod, pod)),
        ];
        hop.counters.extend(redirected.map(|(name, chain, comment)| {
            counted(name.to_owned(), case.counted(TableFamily::Netdev, &chain, &comment).unwrap_or(0))
        }));
    }
    let asked = [&both(RuleName::Dhcp)[..], &[RuleName::RouterSolicitation]].concat();
    hop.counters.push(counted("led to the launcher".to_owned(), case.sum(nic, TableFamily::Netdev, &from_vm, &asked)));
    hop
}

fn guest(case: &Case<'_>, nic: &NicView<'_>) -> Hop {
    let mut hop = Hop::new(HopKind::Guest, "guest");
    hop.state = case.seen.launcher.as_ref().ok().map(|launcher| launcher.state.to_string());
    hop.notes.extend(nic.launcher.map(|nic| nic.mac.to_string()));
    for address in nic.guest_addresses() {
        let lease = nic.lease(Family::of(address));
        let held = if lease.is_some_and(|lease| lease.leased) { "leased" } else { "not leased" };
        hop.addresses.push(address.to_string());
        hop.notes.push(format!("{address} {held}"));
    }
    hop
}

fn counted(name: String, count: u64) -> Counted {
    Counted { name, count }
}
