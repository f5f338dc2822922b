//! CHECK: compares what ADD made with what is there.
//!
//! Not compared: what other plugins may change after ADD (the pod interface's MTU and Ethernet address, further addresses and
//! routes of it), and what attaching rewrites (`vnet_hdr` and `pi` of a tap).

use hostnet::Facts;
use hostnet::facts::{Link, LinkKind, Tun, TunMode};
use hostnet::nft::{Table, TableDrift, TableFacts};
use hostnet::sysctl::Sysctl;

use super::desired::Desired;
use super::drift::{Drift, Ids, LinkDrift, MarkDrift};
use super::mark::{group, mark};
use super::names;
use super::taps::Tap;
use wiring::Mark;

/// What of links, marks and settings is not as ADD made it; empty if all is well.
pub(crate) fn differences(desired: &Desired, facts: &Facts) -> Vec<Drift> {
    let mut found = Vec::new();
    for nic in &desired.nics {
        let link = facts.link(&nic.tap.name);
        let mark = link.and_then(mark);
        let expected_group = group(link, mark.as_ref(), desired.digest, desired.group);
        // Without a mark, which is reported below, the MTU at the time of ADD is unknown.
        let mtu = mark.as_ref().and_then(|mark| mark.restore().get(wiring::MTU_KEY));
        for tap in nic.taps() {
            match facts.link(&tap.name) {
                Some(link) => {
                    of_tap(tap, link, desired, facts, &mut found);
                    if link.group != expected_group {
                        let what = LinkDrift::LinkGroup { found: link.group, expected: expected_group };
                        found.push(Drift::link(&tap.name, what));
                    }
                    if let Some(expected) = mtu.filter(|expected| expected.parse() != Ok(link.mtu_bytes)) {
                        let what = LinkDrift::Mtu { found: link.mtu_bytes, expected: expected.clone() };
                        found.push(Drift::link(&tap.name, what));
                    }
                }
                None => found.push(Drift::link(&tap.name, LinkDrift::Missing)),
            }
        }
        if let Some(link) = link {
            found.extend(of_mark(mark, desired).map(|drift| Drift::link(&link.name, LinkDrift::Mark(drift))));
        }
        if nic.change(facts).all_multicast.is_some() {
            found.push(Drift::link(&nic.pod_interface, LinkDrift::AllMulticastOff));
        }
    }
    found.extend(of_settings(desired, facts));
    found
}

/// The same of the tables, which `facts` hold in full.
pub(crate) fn table_differences(desired: &Desired, facts: &Facts) -> Vec<Drift> {
    desired.tables.iter().flat_map(|table| of_table(table, facts)).map(Drift::Table).collect()
}

/// The settings that masquerading needs. Those of a missing link are left out: the link is reported.
pub(crate) fn of_settings(desired: &Desired, facts: &Facts) -> Vec<Drift> {
    let is_there = |key: &Sysctl| key.link().is_none_or(|link| facts.link(&link).is_some());
    let differs = |(key, expected): &(Sysctl, &'static str)| {
        let found = facts.sysctl(key);
        let is_wrong = found != Some(*expected) && is_there(key);
        is_wrong.then(|| Drift::Setting { key: key.clone(), found: found.map(str::to_owned), expected })
    };
    desired.sysctls.iter().filter_map(differs).collect()
}

fn of_tap(tap: &Tap, link: &Link, desired: &Desired, facts: &Facts, found: &mut Vec<Drift>) {
    let name = &tap.name;
    let mut report = |is_wrong: bool, what: &dyn Fn() -> LinkDrift| {
        if is_wrong {
            found.push(Drift::link(name, what()));
        }
    };
    match &link.kind {
        LinkKind::Tun(tun) => {
            let Tun { owner, group, .. } = *tun;
            let (uid, gid) = (desired.owner.uid, desired.owner.gid);
            report(tun.mode != TunMode::Tap, &|| LinkDrift::Mode(tun.mode));
            report(tun.multi_queue != tap.multi_queue, &|| LinkDrift::MultiQueue { expected: tap.multi_queue });
            report(!tun.persist, &|| LinkDrift::NotPersistent);
            report(owner != Some(uid), &|| LinkDrift::Owner(Ids { found: owner, expected: uid }));
            report(group != Some(gid), &|| LinkDrift::Group(Ids { found: group, expected: gid }));
        }
        other => report(true, &|| LinkDrift::Kind(other.clone())),
    }
    report(!link.up, &|| LinkDrift::Down);
    if let Some(expected) = tap.mac {
        report(link.mac != Some(expected), &|| LinkDrift::Mac { found: link.mac, expected });
    }
    for address in &tap.addresses {
        let is_there = facts.addresses_of(name).any(|there| there.address == *address);
        report(!is_there, &|| LinkDrift::AddressMissing(*address));
    }
    let is_there = |route| facts.routes.iter().any(|there| there.is_same_entry(route));
    let missing = tap.routes.iter().filter(|route| !is_there(route));
    found.extend(missing.map(|route| Drift::RouteMissing(Box::new(route.clone()))));
}

fn of_mark(mark: Option<Mark>, desired: &Desired) -> Option<MarkDrift> {
    let Some(mark) = mark else { return Some(MarkDrift::Missing) };
    let (found, expected) = (mark.digest(), desired.digest);
    match (found == expected, mark.generation()) {
        (true, wiring::GENERATION) => None,
        (true, other) => Some(MarkDrift::OtherRelease(other)),
        (false, _) if mark.is_committed() => Some(MarkDrift::OtherRequest { found, expected }),
        (false, _) => Some(MarkDrift::Provisional),
    }
}

/// A table, rule for rule. Where a device that it names is missing, what it would be is unknown; the device is reported.
fn of_table(table: &Table, facts: &Facts) -> Vec<TableDrift> {
    let found = facts.table(&table.id);
    match TableFacts::expected(table, facts) {
        Ok(mut expected) => {
            forgive_later_addresses(&mut expected, found);
            expected.differences(found)
        }
        Err(_) if found.is_some() => Vec::new(),
        Err(_) => vec![TableDrift::TableMissing(table.id.clone())],
    }
}

/// A pod interface that got a further address after ADD is as it should be, as long as the earlier ones are there.
fn forgive_later_addresses(expected: &mut TableFacts, found: Option<&TableFacts>) {
    for set in expected.sets.iter_mut().filter(|set| names::is_pod_set(&set.name)) {
        let there = found.and_then(|found| found.sets.iter().find(|other| other.name == set.name));
        if let Some(there) = there
            && !there.elements.is_empty()
            && there.elements.iter().all(|element| set.elements.contains(element))
        {
            set.elements.clone_from(&there.elements);
        }
    }
}
