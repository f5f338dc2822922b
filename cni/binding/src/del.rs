//! DEL's plan: from whatever is found of a wiring to nothing of it.

use hostnet::facts::Link;
use hostnet::nft::Transaction;
use hostnet::op::LinkChange;
use hostnet::sysctl::Sysctl;
use hostnet::{Facts, Op, Plan};
use terms::IfName;
use wiring::{Mark, Request};

use super::mark::{OFF, mac_key_link, mark, multicast_key_link};
use super::{existing, rules};

/// Plans the removal of the attachment whose taps are in link group `group`, from facts alone: half a wiring goes like a whole
/// one. `request`, where it is known, tells the names of taps that were cut off before they had a group.
///
/// The order is the reverse of ADD's: as long as a tap is there, it tells what is still to be restored.
pub(crate) fn plan(group: u32, request: Option<&Request>, facts: &Facts) -> Plan {
    let in_group = || facts.links.iter().filter(|link| link.group == group);
    let grouped: Vec<_> = in_group().filter(|link| existing::is_ours(link)).collect();
    let half_made = half_made(request, facts);
    let mut ops = Vec::new();
    let others = facts.links.iter().any(|link| link.group != group && mark(link).is_some());
    let tables: Vec<_> = rules::ids().into_iter().filter(|id| facts.has_table(id)).collect();
    if !tables.is_empty() && !others {
        ops.push(Op::Nft(Transaction::delete(tables)));
    }
    grouped.iter().filter_map(|link| mark(link)).for_each(|mark| ops.extend(restore(&mark, facts)));
    match grouped.as_slice() {
        [] => {}
        // One message for all, unless another program has put a link of its own into the group.
        [_, _, ..] if grouped.len() == in_group().count() => ops.push(Op::DeleteGroup { group }),
        links => ops.extend(links.iter().map(|link| Op::DeleteLink { link: link.name.clone() })),
    }
    ops.extend(half_made.into_iter().map(|link| Op::DeleteLink { link }));
    Plan { ops }
}

fn half_made(request: Option<&Request>, facts: &Facts) -> Vec<IfName> {
    let Some(request) = request else { return Vec::new() };
    let is_half_made = |link: &&Link| existing::is_half_made(link, request.owner());
    let names = existing::names(request);
    names.iter().filter_map(|name| facts.link(name)).filter(is_half_made).map(|link| link.name.clone()).collect()
}

/// What a mark says was otherwise before. A mark is text in the namespace: only what ADD changes is ever restored.
fn restore(mark: &Mark, facts: &Facts) -> Vec<Op> {
    let pairs = mark.restore().iter();
    pairs
        .filter_map(|(key, value)| {
            restore_mac(key, value, facts)
                .or_else(|| restore_multicast(key, value, facts))
                .or_else(|| restore_sysctl(key, value, facts))
        })
        .collect()
}

fn restore_mac(key: &str, value: &str, facts: &Facts) -> Option<Op> {
    let link = mac_key_link(key).filter(|link| facts.link(link).is_some())?;
    let mac = Some(value.parse().ok()?);
    Some(Op::SetLink { link, set: LinkChange { mac, ..LinkChange::default() } })
}

fn restore_multicast(key: &str, value: &str, facts: &Facts) -> Option<Op> {
    let link = multicast_key_link(key).filter(|link| value == OFF && facts.link(link).is_some())?;
    Some(Op::SetLink { link, set: LinkChange { all_multicast: Some(false), ..LinkChange::default() } })
}

fn restore_sysctl(key: &str, value: &str, facts: &Facts) -> Option<Op> {
    let key: Sysctl = key.parse().ok()?;
    // The settings of a link go with it.
    let is_there = key.link().is_none_or(|link| facts.link(&link).is_some());
    let is_number = !value.is_empty() && value.len() <= 3 && value.bytes().all(|b| b.is_ascii_digit());
    let is_ours = key == Sysctl::net("ipv4/ip_forward")
        || key == Sysctl::net("ipv6/conf/all/forwarding")
        || key.link().is_some_and(|link| key == Sysctl::ipv6_conf(&link, "accept_ra"));
    (is_ours && is_number && is_there).then(|| Op::WriteSysctl { key, value: value.to_owned() })
}
