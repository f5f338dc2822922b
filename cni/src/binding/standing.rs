//! How far a namespace is wired already, told from its links.

use hostnet::Facts;
use hostnet::facts::{Link, LinkKind};
use terms::IfName;
use wiring::{Digest, GENERATION, Mark, Owner};

use super::desired::{Desired, Refusal, Tap};
use super::rules;

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
    for tap in desired.taps() {
        taps.push((tap, facts.link(&tap.name).map(|link| claim(link, desired)).transpose()?));
    }
    let is_vm_tap = |tap: &Tap| desired.nics.iter().any(|nic| nic.tap.name == tap.name);
    let committed = |claim: &Option<Claim>| *claim == Some(Claim::Committed);
    if taps.iter().any(|(_, claim)| committed(claim)) {
        let missing = taps.iter().find(|(tap, claim)| if is_vm_tap(tap) { !committed(claim) } else { claim.is_none() });
        return missing.map_or(Ok(Standing::Wired), |(tap, _)| Err(Refusal::Incomplete(tap.name.clone())));
    }
    let any_tap = taps.iter().any(|(_, claim)| claim.is_some());
    let any_table = rules::ids().iter().any(|id| facts.has_table(id));
    Ok(if any_tap || any_table { Standing::LeftOver } else { Standing::Fresh })
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

fn claim(link: &Link, desired: &Desired) -> Result<Claim, Refusal> {
    match mark(link) {
        Some(mark) if mark.is_committed() => Ok(Claim::Committed),
        Some(_) => Ok(Claim::Ours),
        None if link.group == desired.group || is_half_made(link, desired.owner) => Ok(Claim::Ours),
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
