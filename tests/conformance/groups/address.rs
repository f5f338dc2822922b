//! Group 12: an IPAM delegate that fails, is missing or gives nothing.

use serde_json::json;

use super::{Case, scripts};
use crate::conformance::attachment::Attachment;
use crate::conformance::facts::Snapshot;
use crate::conformance::findings::Findings;
use crate::conformance::trouble::Trouble;

const FAILS: &str = r#"echo '{"cniVersion":"0.4.0","code":11,"msg":"no address today"}'; exit 1"#;
const IS_EMPTY: &str = r#"echo '{"cniVersion":"0.4.0","ips":[]}'"#;

pub(super) fn run(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    scripts::warm_up(case)?;
    scripts::ipam("ipam-fails", FAILS, "true")?;
    scripts::ipam("ipam-empty", IS_EMPTY, "true")?;
    let cases = [
        ("an IPAM plugin that fails", "ipam-fails", true),
        ("an IPAM plugin without addresses", "ipam-empty", true),
        ("an IPAM plugin that does not exist", "ipam-missing", false),
    ];
    for (number, (what, kind, is_there)) in cases.into_iter().enumerate() {
        let mut attachment = Attachment::prepare(case, 1200 + number)?;
        attachment.extra = json!({"ipam": {"type": kind}});
        let before = Snapshot::of(&attachment)?;
        let answer = attachment.call("ADD").env("CNI_PATH", scripts::path_with_scripts(case)).run()?;
        findings.expect_none(format!("{what} fails ADD"), answer.wrong_as_failure());
        findings.expect_none(format!("{what} leaves no device"), before.difference(&attachment.pod)?);
        if is_there {
            let verbs = scripts::ipam_verbs();
            findings.expect(format!("{what} gets a DEL"), verbs == ["ADD", "DEL"], || format!("{verbs:?}"));
        }
    }
    Ok(())
}
