//! Group 22: what the runtime asks for is honoured, the nearer source before the farther.

use super::{Case, scripts};
use crate::conformance::attachment::Attachment;
use crate::conformance::facts::Snapshot;
use crate::conformance::findings::Findings;
use crate::conformance::trouble::Trouble;

pub(super) fn run(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    scripts::warm_up(case)?;
    for (number, wish) in case.subject.wishes.iter().enumerate() {
        let mut attachment = Attachment::prepare(case, 2200 + number)?.wishing(wish);
        let before = Snapshot::of(&attachment)?;
        let answer = attachment.add()?;
        findings.expect(format!("ADD succeeds: {}", wish.what), answer.succeeded(), || answer.shown());
        let shown = attachment.sh(wish.place, wish.shows).err();
        findings.expect_none(format!("honoured: {}", wish.what), shown.map(|trouble| trouble.chain()));
        findings.expect_none(format!("DEL succeeds: {}", wish.what), attachment.del()?.wrong_as_silent_success());
        findings.expect_none(format!("DEL leaves nothing: {}", wish.what), before.difference(&attachment.pod)?);
    }
    Ok(())
}
