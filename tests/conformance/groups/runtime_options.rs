//! Group 22: what the runtime asks for is honoured, the nearer source before the farther.

use super::{Case, scripts};
use crate::conformance::attachment::Attachment;
use crate::conformance::facts::Snapshot;
use crate::conformance::findings::Findings;
use crate::conformance::trouble::Trouble;

pub(super) fn run(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    scripts::warm_up(case)?;
    for (number, option) in case.subject.runtime_options.iter().enumerate() {
        let mut attachment = Attachment::prepare(case, 2200 + number)?.with_option(option);
        let before = Snapshot::of(&attachment)?;
        let answer = attachment.add()?;
        findings.expect(format!("ADD succeeds: {}", option.what), answer.succeeded(), || answer.shown());
        let shown = attachment.sh(option.place, option.shows).err();
        findings.expect_none(format!("honoured: {}", option.what), shown.map(|trouble| trouble.chain()));
        findings.expect_none(format!("DEL succeeds: {}", option.what), attachment.del()?.wrong_as_silent_success());
        findings.expect_none(format!("DEL leaves nothing: {}", option.what), before.difference(&attachment.pod)?);
    }
    Ok(())
}
