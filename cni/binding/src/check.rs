//! CHECK: what there must be against what is, each thing missing or altered by name.
//!
//! Not compared: what other plugins may change after us (the pod interface's MTU and Ethernet address, further addresses and
//! routes of it), and what attaching rewrites (`vnet_hdr` and `pi` of a tap).

use hostnet::Facts;
use hostnet::facts::{Link, LinkKind, TunMode};
use hostnet::nft::{Table, TableFacts};
use hostnet::sysctl::Sysctl;

use super::desired::Desired;
use super::mark::{MTU_KEY, group, mark};
use super::rules;
use super::taps::{Nic, Tap};

/// What of links, marks and settings is not as ADD made it, in words; empty if all is well.
pub(crate) fn differences(desired: &Desired, facts: &Facts) -> Vec<String> {
    let mut found = Vec::new();
    for nic in &desired.nics {
        for tap in nic.taps() {
            match facts.link(&tap.name) {
                Some(link) => found.extend(of_tap(nic, tap, link, desired, facts)),
                None => found.push(format!("link {} is missing", tap.name)),
            }
        }
        found.extend(of_mark(nic, desired, facts));
        if nic.change(facts).all_multicast.is_some() {
            found.push(format!("link {}: all-multicast is off, not on", nic.pod_interface));
        }
    }
    found.extend(of_settings(desired, facts));
    found
}

/// The same of the tables, which `facts` hold in full.
pub(crate) fn table_differences(desired: &Desired, facts: &Facts) -> Vec<String> {
    desired.tables.iter().flat_map(|table| of_table(table, facts)).collect()
}

/// The settings that masquerading needs; one of a link that is missing is passed over, for the link is said to be.
pub(crate) fn of_settings(desired: &Desired, facts: &Facts) -> Vec<String> {
    let is_there = |key: &Sysctl| key.link().is_none_or(|link| facts.link(&link).is_some());
    let differs = |(key, wanted): &(Sysctl, &'static str)| {
        let value = facts.sysctl(key);
        let is_wrong = is_there(key) && value != Some(*wanted);
        is_wrong.then(|| format!("sysctl {key} is {}, not {wanted}", value.unwrap_or("missing")))
    };
    desired.sysctls.iter().filter_map(differs).collect()
}

fn of_tap(nic: &Nic, tap: &Tap, link: &Link, desired: &Desired, facts: &Facts) -> Vec<String> {
    let name = &tap.name;
    let mut found = Vec::new();
    let mut expect = |what: &str, is: String, wanted: String| {
        if is != wanted {
            found.push(format!("link {name}: {what} is {is}, not {wanted}"));
        }
    };
    match &link.kind {
        LinkKind::Tun(tun) => {
            let number = |id: Option<u32>| id.map_or_else(|| "nobody".to_owned(), |id| id.to_string());
            expect("mode", format!("{:?}", tun.mode), format!("{:?}", TunMode::Tap));
            expect("multi_queue", tun.multi_queue.to_string(), tap.multi_queue.to_string());
            expect("persist", tun.persist.to_string(), true.to_string());
            expect("owner", number(tun.owner), desired.owner.uid.to_string());
            expect("group", number(tun.group), desired.owner.gid.to_string());
        }
        other => expect("kind", format!("{other:?}"), "a tap".to_owned()),
    }
    expect("link group", link.group.to_string(), group(nic, desired.digest, desired.group, facts).to_string());
    expect("up", link.up.to_string(), true.to_string());
    if let Some(mtu) = mtu_of_mark(nic, facts) {
        expect("MTU", link.mtu_bytes.to_string(), mtu);
    }
    if let Some(mac) = tap.mac {
        expect("MAC", link.mac.map_or_else(|| "none".to_owned(), |mac| mac.to_string()), mac.to_string());
    }
    for address in &tap.addresses {
        if !facts.addresses_of(name).any(|there| there.address == *address) {
            found.push(format!("link {name}: address {address} is missing"));
        }
    }
    for route in &tap.routes {
        if !facts.routes.iter().any(|there| there.is_same_entry(route)) {
            found.push(format!("{route} is missing"));
        }
    }
    found
}

/// The MTU of ADD's time; without a mark, which is said elsewhere, nothing is known.
fn mtu_of_mark(nic: &Nic, facts: &Facts) -> Option<String> {
    mark(facts.link(&nic.tap.name)?)?.restore().get(MTU_KEY).cloned()
}

fn of_mark(nic: &Nic, desired: &Desired, facts: &Facts) -> Option<String> {
    let link = facts.link(&nic.tap.name)?;
    let name = &link.name;
    match mark(link) {
        Some(mark) if mark.digest() == desired.digest && mark.generation() == wiring::GENERATION => None,
        Some(mark) if mark.digest() == desired.digest => {
            Some(format!("link {name}: mark is of another release: generation {}", mark.generation()))
        }
        Some(mark) if mark.is_committed() => {
            Some(format!("link {name}: mark is of request {}, not {}", mark.digest(), desired.digest))
        }
        Some(_) => Some(format!("link {name}: mark is provisional: ADD never finished")),
        None => Some(format!("link {name}: mark is missing")),
    }
}

/// A table, rule for rule. It cannot be said what it would be where a device that it names is missing; that was said already.
fn of_table(table: &Table, facts: &Facts) -> Vec<String> {
    let found = facts.table(&table.id);
    match TableFacts::expected(table, facts) {
        Ok(mut expected) => {
            forgive_later_addresses(&mut expected, found);
            expected.differences(found).into_iter().map(|words| format!("nft {words}")).collect()
        }
        Err(_) if found.is_some() => Vec::new(),
        Err(_) => vec![format!("nft table {} is missing", table.id)],
    }
}

/// A pod interface that got a further address after ADD is none of our business, as long as the earlier ones stand.
fn forgive_later_addresses(expected: &mut TableFacts, found: Option<&TableFacts>) {
    for set in expected.sets.iter_mut().filter(|set| rules::is_pod_set(&set.name)) {
        let there = found.and_then(|found| found.sets.iter().find(|other| other.name == set.name));
        if let Some(there) = there
            && !there.elements.is_empty()
            && there.elements.iter().all(|element| set.elements.contains(element))
        {
            set.elements.clone_from(&there.elements);
        }
    }
}
