//! Groups 14 and 15: DEL cleans up in every situation it can meet, and only what is its own.

use serde_json::json;

use super::{Case, scripts};
use crate::conformance::attachment::{Attachment, Farewell, merge};
use crate::conformance::facts::Snapshot;
use crate::conformance::findings::Findings;
use crate::conformance::subject::{Disturbance, Place, Role};
use crate::conformance::trouble::Trouble;

const NO_INTERFACE: Disturbance = Disturbance {
    what: "with the interface gone",
    place: Place::Pod,
    line: "ip link del $IFNAME 2>/dev/null || ip link del eth0",
};

/// Group 14.
pub(super) fn situations(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    scripts::warm_up(case)?;
    for (number, farewell) in Farewell::ALL.into_iter().enumerate() {
        let attachment = Attachment::prepare(case, 1400 + number)?;
        let before = Snapshot::of(&attachment)?;
        let attachment = attachment.added()?;
        let answer = attachment.del_as(farewell)?;
        findings.expect_none(format!("DEL {} succeeds", farewell.name()), answer.wrong_as_silent_success());
        let residue = attachment.residue(&before, farewell)?;
        findings.expect_none(format!("DEL {} leaves nothing", farewell.name()), residue);
        let again = attachment.del_as(farewell)?;
        findings.expect_none(format!("a second DEL {} succeeds", farewell.name()), again.wrong_as_silent_success());
    }
    if case.subject.role != Role::Ipam {
        disturbed(case, 1410, &NO_INTERFACE, findings)?;
    }
    never_added(case, findings)?;
    reconfigured(case, findings)?;
    // Last, for what a node has lost it does not get back.
    for (number, uprooting) in case.subject.uprootings.iter().enumerate() {
        disturbed(case, 1420 + number, uprooting, findings)?;
    }
    Ok(())
}

/// DEL after something it would have removed or used has gone: it may leave nothing that was not there before.
fn disturbed(
    case: &Case<'_>,
    number: usize,
    disturbance: &Disturbance,
    findings: &mut Findings,
) -> Result<(), Trouble> {
    let attachment = Attachment::prepare(case, number)?;
    let before = Snapshot::of(&attachment)?;
    let attachment = attachment.added()?;
    attachment.disturb(disturbance)?;
    let answer = attachment.del()?;
    findings.expect_none(format!("DEL {} succeeds", disturbance.what), answer.wrong_as_silent_success());
    findings.expect_none(format!("DEL {} leaves nothing", disturbance.what), before.additions(&attachment.pod)?);
    Ok(())
}

fn never_added(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    let attachment = Attachment::prepare(case, 1430)?;
    let before = Snapshot::of(&attachment)?;
    let answer = attachment.del()?;
    findings.expect_none("DEL without an ADD succeeds", answer.wrong_as_silent_success());
    findings.expect_none("DEL without an ADD changes nothing", before.difference(&attachment.pod)?);
    Ok(())
}

fn reconfigured(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    let attachment = Attachment::prepare(case, 1440)?;
    let before = Snapshot::of(&attachment)?;
    let mut attachment = attachment.added()?;
    let mut changed = attachment.extra.clone();
    merge(&mut changed, &case.subject.changed_conf);
    attachment.extra = changed;
    let answer = attachment.del()?;
    findings.expect_none("DEL with changed configuration succeeds", answer.wrong_as_silent_success());
    findings.expect_none("DEL with changed configuration leaves nothing", before.difference(&attachment.pod)?);
    Ok(())
}

/// Group 15: two containers of one network that were given the same address.
pub(super) fn others(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    scripts::warm_up(case)?;
    let fixed = json!({"ipam": {"type": "static", "addresses": [{"address": "10.77.1.200/24"}]}});
    let mut staying = Attachment::prepare(case, 150)?;
    let mut leaving = Attachment::prepare(case, 151)?;
    match case.subject.role {
        Role::Main => (staying.extra, leaving.extra) = (fixed.clone(), fixed),
        Role::Chained => {
            if let (Some(mine), Some(theirs)) = (&mut leaving.previous, &staying.previous) {
                merge(mine, &json!({"ips": theirs.get("ips")}));
            }
        }
        Role::Trailing | Role::Ipam => {}
    }
    let staying = staying.added()?;
    let (before, before_leaving) = (Snapshot::of(&staying)?, Snapshot::of(&leaving)?);
    let answer = leaving.add()?;
    findings.expect("two attachments may have one address", answer.succeeded(), || answer.shown());
    let deleted = leaving.del()?;
    findings.expect_none("DEL of the one succeeds", deleted.wrong_as_silent_success());
    findings.expect_none("the other's pod and the node are as with it alone", before.difference(&staying.pod)?);
    findings.expect_none("the one leaves nothing", before_leaving.difference(&leaving.pod)?);
    if case.has("CHECK") {
        findings.expect_none("CHECK of the other passes", staying.check()?.wrong_as_silent_success());
    }
    Ok(())
}
