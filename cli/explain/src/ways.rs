//! Asking the kernel which way packets to and from a VM would take: rules and refusing routes that facts do not tell are in
//! its answer.

use std::net::IpAddr;

use hostnet::{Facts, Linux, RouteQuery};
use terms::IfName;
use wiring::Family;

use super::case::{Case, NicView};
use super::evidence::{AskedRoute, From, Purpose};
use super::fib;

/// Addresses for documentation, which no host has (RFC 5737, RFC 3849, RFC 9637): only the default route leads to them.
const BEYOND: [&str; 5] = ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"];

/// Asks all that is to be asked in one of the two namespaces, the one that the calling thread is in.
pub(super) fn ask(case: &Case<'_>, at: From) -> Vec<AskedRoute> {
    let mut kernel = Linux::here();
    let asked = |(nic, purpose, journey): (String, Purpose, RouteQuery)| {
        let leads = kernel.look_up_route(&journey).map_err(|error| error.errno());
        AskedRoute { nic, at, purpose, journey, leads }
    };
    journeys(case, at).into_iter().map(asked).collect()
}

fn journeys(case: &Case<'_>, at: From) -> Vec<(String, Purpose, RouteQuery)> {
    let mut journeys = Vec::new();
    for nic in &case.nics {
        let mut add = |purpose, journey| journeys.push((nic.interface.name.clone(), purpose, journey));
        for (address, by) in ends(nic, at) {
            add(Purpose::ToVm, RouteQuery { to: address, passed_on: None });
            let facts = if at == From::Host { Some(&case.seen.host) } else { case.pod };
            let is_router = at == From::Pod || case.is_routed_by_host(nic, Family::of(address));
            if let Some((far, link)) = facts.filter(|_| is_router).and_then(|facts| beyond(facts, address)) {
                if let Some(link) = link {
                    add(Purpose::ToVm, RouteQuery { to: address, passed_on: Some((far, link)) });
                }
                add(Purpose::Beyond, RouteQuery { to: far, passed_on: Some((address, by)) });
            }
        }
    }
    journeys
}

/// The VM's addresses as a namespace knows them, and the link that they are behind. A macvlan's children are behind none, and
/// the namespace of a bridge-bound guest has no way to it.
fn ends(nic: &NicView<'_>, at: From) -> Vec<(IpAddr, IfName)> {
    let (addresses, link) = match at {
        From::Host => (nic.addresses.clone(), nic.routed().filter(|_| !nic.is_macvlan).map(|link| link.name.clone())),
        From::Pod => (nic.guest_addresses(), nic.is_masqueraded().then(|| nic.tap.clone())),
    };
    link.into_iter().flat_map(|link| addresses.iter().map(move |address| (*address, link.clone()))).collect()
}

/// An address of a family that facts know no better way to than the default route, and that route's link if it has one.
fn beyond(facts: &Facts, like: IpAddr) -> Option<(IpAddr, Option<IfName>)> {
    let addresses = BEYOND.iter().filter_map(|address| address.parse().ok());
    let mut far = addresses.filter(|address: &IpAddr| address.is_ipv4() == like.is_ipv4());
    far.find_map(|address| {
        let route = fib::route_to(facts, address).filter(|route| route.is_default())?;
        Some((address, route.link.clone()))
    })
}
