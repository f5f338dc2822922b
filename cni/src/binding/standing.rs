//! How far a namespace is wired already, told from its links.

use hostnet::Facts;
use hostnet::facts::{Link, LinkKind};
use terms::IfName;
use wiring::{Digest, GENERATION, Mark, Owner};

use super::desired::{Desired, Nic, Refusal, Tap};
use super::{check, rules};

/// Link groups of attachments begin here and go on to twice that: away from 0, which all links are in, and from the small
/// numbers that people use.
pub(super) const FIRST_GROUP: u32 = 0x4000_0000;

/// What an ADD finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing of ours.
    Fresh,
    /// All that the request comes to.
    Wired,
    /// Part of a wiring that was never finished.
    LeftOver,
}

/// Tells how far `desired` is met.
pub(super) fn of(desired: &Desired, facts: &Facts) -> Result<Standing, Refusal> {
    refuse_other_request(desired.digest, facts)?;
    let mut taps = Vec::new();
    for nic in &desired.nics {
        let group = group(nic, desired, facts);
        for tap in nic.taps() {
            taps.push((tap, facts.link(&tap.name).map(|link| claim(link, group, desired.owner)).transpose()?));
        }
    }
    let is_vm_tap = |tap: &Tap| desired.nics.iter().any(|nic| nic.tap.name == tap.name);
    let committed = |claim: &Option<Claim>| *claim == Some(Claim::Committed);
    if taps.iter().any(|(_, claim)| committed(claim)) {
        let tap = taps.iter().find(|(tap, claim)| if is_vm_tap(tap) { !committed(claim) } else { claim.is_none() });
        let lacking = tap.map(|(tap, _)| format!("{} is missing", tap.name)).or_else(|| lacking(desired, facts));
        return lacking.map_or(Ok(Standing::Wired), |what| Err(Refusal::Incomplete(what)));
    }
    let any_tap = taps.iter().any(|(_, claim)| claim.is_some());
    let any_table = rules::ids().iter().any(|id| facts.has_table(id));
    Ok(if any_tap || any_table { Standing::LeftOver } else { Standing::Fresh })
}

/// What a wiring whose taps are all there lacks: DEL takes tables and settings first, and anybody can.
fn lacking(desired: &Desired, facts: &Facts) -> Option<String> {
    let table = desired.tables.iter().find(|table| !facts.has_table(&table.id));
    let table = table.map(|table| format!("nft table {} is missing", table.id));
    table.or_else(|| check::of_settings(desired, facts).into_iter().next())
}

/// The link group of a NIC's taps: that of the attachment that made them, which may be another one with the same request.
pub(super) fn group(nic: &Nic, desired: &Desired, facts: &Facts) -> u32 {
    let is_met = |mark: Mark| mark.is_committed() && mark.digest() == desired.digest;
    let maker = facts.link(&nic.tap.name).filter(|link| mark(link).is_some_and(is_met)).map(|link| link.group);
    maker.filter(|group| (FIRST_GROUP..2 * FIRST_GROUP).contains(group)).unwrap_or(desired.group)
}

/// The committed mark of a link.
pub(super) fn mark(link: &Link) -> Option<Mark> {
    link.alias.as_deref()?.parse().ok()
}

fn refuse_other_request(asked: Digest, facts: &Facts) -> Result<(), Refusal> {
    let other = facts.links.iter().find_map(|link| {
        let mark = mark(link).filter(Mark::is_committed)?;
        let (link, found) = (link.name.clone(), mark.digest());
        match (found == asked, mark.generation()) {
            (false, _) => Some(Refusal::OtherRequest { link, found, asked }),
            (true, GENERATION) => None,
            (true, found) => Some(Refusal::OtherRelease { link, found }),
        }
    });
    other.map_or(Ok(()), Err)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    Committed,
    Ours,
}

fn claim(link: &Link, group: u32, owner: Owner) -> Result<Claim, Refusal> {
    match mark(link) {
        Some(mark) if mark.is_committed() => Ok(Claim::Committed),
        Some(_) => Ok(Claim::Ours),
        None if link.group == group || is_half_made(link, owner) => Ok(Claim::Ours),
        None => Err(Refusal::Foreign(link.name.clone())),
    }
}

/// A tap between its creation and the message that gives it group and mark.
pub(super) fn is_half_made(link: &Link, owner: Owner) -> bool {
    link.group == 0
        && link.alias.is_none()
        && matches!(&link.kind, LinkKind::Tun(tun) if tun.owner == Some(owner.uid) && tun.group == Some(owner.gid))
}

/// The names of all taps that a request can come to, whatever the namespace looks like.
pub(super) fn names(request: &wiring::Request) -> Vec<IfName> {
    use wiring::{Binding, NicKey};
    let keyed = request.interfaces().iter().filter_map(|i| Some((i.binding, NicKey::of(&i.pod_interface).ok()?)));
    keyed
        .flat_map(|(binding, key)| match binding {
            Binding::Masquerade => vec![key.masquerade_tap(), key.service_tap()],
            Binding::Bridge => vec![key.bridge_tap(), key.service_tap()],
            Binding::Sriov => Vec::new(),
        })
        .collect()
}
