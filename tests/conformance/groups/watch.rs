//! Groups 16 and 17: CHECK reports what is broken and tolerates what others may change.

use super::Case;
use crate::conformance::attachment::{Attachment, Farewell};
use crate::conformance::facts::Snapshot;
use crate::conformance::findings::Findings;
use crate::conformance::subject::Disturbance;
use crate::conformance::trouble::Trouble;

/// Group 16.
pub(super) fn notices(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    if !case.has("CHECK") {
        return refused_before_0_4(case, findings);
    }
    let attachment = Attachment::prepare(case, 16)?.added()?;
    let before = Snapshot::of(&attachment)?;
    findings.expect_none("CHECK right after ADD passes", attachment.check()?.wrong_as_silent_success());
    findings.expect_none("CHECK changes nothing", before.difference(&attachment.pod)?);
    let without = Attachment { result: None, ..attachment.clone() }.check()?;
    findings.expect_none("CHECK without prevResult is an error", without.wrong_as_failure());
    for (number, breakage) in case.subject.breakages.iter().enumerate() {
        let (answer, _) = disturbed(case, 1600 + number, breakage)?;
        findings.expect_none(format!("CHECK notices: {}", breakage.what), answer.wrong_as_failure());
    }
    Ok(())
}

fn refused_before_0_4(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    let attachment = Attachment::prepare(case, 16)?.added()?;
    let answer = attachment.check()?;
    findings.expect_none("CHECK is refused in a version that has none", answer.wrong_as_failure());
    Ok(())
}

/// Group 17.
pub(super) fn tolerates(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    for (number, tolerance) in case.subject.tolerances.iter().enumerate() {
        let (answer, attachment) = disturbed(case, 1700 + number, tolerance)?;
        findings.expect_none(format!("CHECK tolerates: {}", tolerance.what), answer.wrong_as_silent_success());
        let deleted = attachment.del_as(Farewell::Full)?;
        findings.expect_none(format!("DEL works after: {}", tolerance.what), deleted.wrong_as_silent_success());
    }
    Ok(())
}

fn disturbed<'a>(
    case: &'a Case<'a>,
    number: usize,
    disturbance: &Disturbance,
) -> Result<(crate::conformance::call::Answer, Attachment<'a>), Trouble> {
    let attachment = Attachment::prepare(case, number)?.added()?;
    attachment.disturb(disturbance)?;
    Ok((attachment.check()?, attachment))
}
