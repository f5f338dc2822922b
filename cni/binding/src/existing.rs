//! Detects existing wiring in a namespace from its links: none, partial or complete.

use hostnet::Facts;
use hostnet::facts::{Link, LinkKind};
use hostnet::nft::TableDrift;
use terms::IfName;
use wiring::{Binding, Digest, GENERATION, Mark, NicKey, Owner};

use super::desired::Desired;
use super::drift::{Drift, LinkDrift};
use super::mark::{group, mark};
use super::refusal::Refusal;
use super::taps::Tap;
use super::{check, rules};

/// What exists of a wiring when ADD starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WiringState {
    /// Neither a tap of the request nor a table of the plugin exists.
    None,
    /// All that the request needs.
    Complete,
    /// Part of a wiring that an ADD did not finish.
    Partial,
}

/// Compares the links of a namespace with `desired`.
pub(crate) fn of(desired: &Desired, facts: &Facts) -> Result<WiringState, Refusal> {
    refuse_other_request(desired.digest, facts)?;
    let mut taps = Vec::new();
    for nic in &desired.nics {
        let link = facts.link(&nic.tap.name);
        let group = group(link, link.and_then(mark).as_ref(), desired.digest, desired.group);
        for tap in nic.taps() {
            taps.push((tap, facts.link(&tap.name).map(|link| claim(link, group, desired.owner)).transpose()?));
        }
    }
    let is_vm_tap = |tap: &Tap| desired.nics.iter().any(|nic| nic.tap.name == tap.name);
    let committed = |claim: &Option<Claim>| *claim == Some(Claim::Committed);
    if taps.iter().any(|(_, claim)| committed(claim)) {
        let tap = taps.iter().find(|(tap, claim)| if is_vm_tap(tap) { !committed(claim) } else { claim.is_none() });
        let lacking =
            tap.map(|(tap, _)| Drift::link(&tap.name, LinkDrift::Missing)).or_else(|| lacking(desired, facts));
        return lacking.map_or(Ok(WiringState::Complete), |what| Err(Refusal::Incomplete(Box::new(what))));
    }
    let any_tap = taps.iter().any(|(_, claim)| claim.is_some());
    let any_table = rules::ids().iter().any(|id| facts.has_table(id));
    Ok(if any_tap || any_table { WiringState::Partial } else { WiringState::None })
}

/// What is missing of a wiring whose taps are all there: DEL removes tables and settings first.
fn lacking(desired: &Desired, facts: &Facts) -> Option<Drift> {
    let table = desired.tables.iter().find(|table| !facts.has_table(&table.id));
    let table = table.map(|table| Drift::Table(TableDrift::TableMissing(table.id.clone())));
    table.or_else(|| check::of_settings(desired, facts).into_iter().next())
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

/// Whether a link of an attachment's group was made by this plugin: a tap with a mark, or a service tap, which has none.
pub(crate) fn is_ours(link: &Link) -> bool {
    let is_service_tap = link.alias.is_none() && link.name.as_str().starts_with("svc-");
    matches!(link.kind, LinkKind::Tun(_)) && (mark(link).is_some() || is_service_tap)
}

/// A tap between its creation and the message that gives it group and mark.
pub(crate) fn is_half_made(link: &Link, owner: Owner) -> bool {
    link.group == 0
        && link.alias.is_none()
        && matches!(&link.kind, LinkKind::Tun(tun) if tun.owner == Some(owner.uid) && tun.group == Some(owner.gid))
}

/// The names of all taps that a request can come to, whatever the namespace looks like.
pub(crate) fn names(request: &wiring::Request) -> Vec<IfName> {
    let keyed = request.interfaces().iter().filter_map(|i| Some((i.binding, NicKey::of(&i.pod_interface).ok()?)));
    keyed
        .flat_map(|(binding, key)| match binding {
            Binding::Masquerade => vec![key.masquerade_tap(), key.service_tap()],
            Binding::Bridge => vec![key.bridge_tap(), key.service_tap()],
            Binding::Sriov => Vec::new(),
        })
        .collect()
}
