//! ADD's plan: from nothing of ours to all that must be there.

use hostnet::facts::{AddrGenMode, Address};
use hostnet::nft::Transaction;
use hostnet::op::{LinkChange, NewTap};
use hostnet::sysctl::Sysctl;
use hostnet::{Facts, Op, Plan};
use wiring::{Mark, Owner};

use super::addresses::Choice;
use super::desired::Desired;
use super::refusal::Refusal;
use super::taps::Tap;

/// Whether new links come without IPv6.
pub(crate) const IPV6_OFF_BY_DEFAULT: &str = "ipv6/conf/default/disable_ipv6";

/// Plans a wiring in a namespace that has nothing of ours.
///
/// The order: taps first, each telling what is to be restored; then what they tell of is changed; the tables when every device
/// they name is there; the marks that let a launcher start at the very end.
pub(crate) fn plan(desired: Desired, choices: &[Choice], facts: &Facts) -> Result<Plan, Refusal> {
    let marks: Vec<Mark> =
        desired.notes(choices, facts).into_iter().map(Mark::provisional).collect::<Result<_, _>>()?;
    let mut ops = Vec::new();
    for (nic, mark) in desired.nics.iter().zip(&marks) {
        ops.push(create(&nic.tap, &desired, Some(mark)));
        ops.extend(nic.service_tap.iter().map(|tap| create(tap, &desired, None)));
    }
    for nic in &desired.nics {
        let set = nic.change(facts);
        if !set.is_empty() {
            ops.push(Op::SetLink { link: nic.pod_interface.clone(), set });
        }
    }
    ops.extend(desired.taps().filter_map(|tap| allow_ipv6(tap, facts)));
    desired.taps().for_each(|tap| ops.extend(bring_up(tap)));
    let changed = desired.sysctls.iter().filter(|(key, value)| facts.sysctl(key) != Some(value));
    ops.extend(changed.map(|(key, value)| Op::WriteSysctl { key: key.clone(), value: (*value).to_owned() }));
    if !desired.tables.is_empty() {
        ops.push(Op::Nft(Transaction::add(desired.tables)));
    }
    for (nic, mark) in desired.nics.iter().zip(marks) {
        let text = mark.committed(desired.digest).to_string();
        ops.push(Op::SetLink { link: nic.tap.name.clone(), set: LinkChange::alias(text) });
    }
    Ok(Plan { ops })
}

fn create(tap: &Tap, desired: &Desired, mark: Option<&Mark>) -> Op {
    let Owner { uid, gid } = desired.owner;
    Op::CreateTap(NewTap {
        name: tap.name.clone(),
        owner: uid,
        group: Some(gid),
        multi_queue: tap.multi_queue,
        set: LinkChange {
            mtu: Some(tap.mtu),
            mac: tap.mac,
            alias: mark.map(Mark::to_string),
            // No address of the kernel's making, and no router solicitation from this side.
            addr_gen_mode: tap.has_ipv6.then_some(AddrGenMode::None),
            group: Some(desired.group),
            ..LinkChange::default()
        },
    })
}

/// Where IPv6 is off for what is new, and other plugins turned it on for the links they made, so do we for ours.
fn allow_ipv6(tap: &Tap, facts: &Facts) -> Option<Op> {
    let is_off = facts.sysctl(&Sysctl::net(IPV6_OFF_BY_DEFAULT)) == Some("1");
    let needs_it = tap.addresses.iter().any(|address| !address.is_ipv4());
    (is_off && needs_it)
        .then(|| Op::WriteSysctl { key: Sysctl::ipv6_conf(&tap.name, "disable_ipv6"), value: "0".to_owned() })
}

/// IPv6 routes need a link that is up; addresses are valid at once, because duplicate detection is off.
fn bring_up(tap: &Tap) -> Vec<Op> {
    let addresses = tap.addresses.iter().map(|address| Op::AddAddress(Address::permanent(tap.name.clone(), *address)));
    let up = Op::SetLink { link: tap.name.clone(), set: LinkChange::up() };
    addresses.chain([up]).chain(tap.routes.iter().cloned().map(Op::AddRoute)).collect()
}
