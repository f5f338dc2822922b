//! Group 18: STATUS is ready when ADD would work, and says 50 or 51 when not.

use serde_json::json;

use super::{Case, scripts};
use crate::conformance::attachment::Attachment;
use crate::conformance::facts::Snapshot;
use crate::conformance::findings::Findings;
use crate::conformance::node::{Node, shell};
use crate::conformance::subject::Role;
use crate::conformance::trouble::Trouble;

const UNREADY: &str = r#"echo '{"cniVersion":"1.1.0","code":50,"msg":"no addresses left"}'; exit 1"#;

pub(super) fn run(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    let attachment = Attachment::prepare(case, 18)?;
    let before = Snapshot::of(&attachment)?;
    findings.expect_none("STATUS of a good node passes", attachment.call("STATUS").run()?.wrong_as_silent_success());
    findings.expect_none("STATUS changes nothing", before.difference(&attachment.pod)?);
    let old = attachment.conf("STATUS").to_string().replace("\"1.1.0\"", "\"1.0.0\"");
    let refused = attachment.call("STATUS").input(old).run()?;
    findings.expect("STATUS before 1.1.0 is error 1", refused.error_code() == Some(1), || refused.shown());
    if case.subject.role == Role::Main {
        scripts::ipam("ipam-unready", "true", UNREADY)?;
        let asking = Attachment { extra: json!({"ipam": {"type": "ipam-unready"}}), ..attachment.clone() };
        let answer = asking.call("STATUS").env("CNI_PATH", scripts::path_with_scripts(case)).run()?;
        findings.expect("STATUS asks the IPAM plugin", answer.error_code() == Some(50), || answer.shown());
    }
    for disturbance in &case.subject.unready {
        // What makes a node unready can hardly be mended: each on a node of its own.
        let answer = Node::with(|node| {
            let program =
                scripts::under_its_type(&case.subject.program().map_err(Trouble::Words)?, case.subject.plugin)?;
            shell(case.subject.node, &[])?;
            let case = Case { node, program, ..*case };
            let attachment = Attachment::bare(&case, 180)?;
            attachment.disturb(disturbance)?;
            attachment.call("STATUS").run()
        })?;
        let holds = matches!(answer.error_code(), Some(50 | 51));
        findings.expect(format!("STATUS is 50 or 51: {}", disturbance.what), holds, || answer.shown());
    }
    Ok(())
}
