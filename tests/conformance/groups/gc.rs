//! Group 19: GC removes what no longer has a right to be, and nothing else.

use serde_json::{Value, json};

use super::{Case, scripts};
use crate::conformance::attachment::Attachment;
use crate::conformance::call::Answer;
use crate::conformance::facts::Snapshot;
use crate::conformance::findings::Findings;
use crate::conformance::subject::Role;
use crate::conformance::trouble::Trouble;

pub(super) fn run(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    scripts::warm_up(case)?;
    let valid = Attachment::prepare(case, 190)?.added()?;
    let elsewhere = Attachment { network: "suite-other".to_owned(), ..Attachment::prepare(case, 191)? }.added()?;
    let stale = Attachment::prepare(case, 192)?;
    let before_stale = Snapshot::of(&stale)?;
    let stale = stale.added()?;
    let all = Snapshot::of(&stale)?;

    for (what, list) in [("without a list", None), ("with null for a list", Some(Value::Null))] {
        findings.expect_none(format!("GC {what} succeeds"), collect(&valid, list)?.wrong_as_silent_success());
        findings.expect_none(format!("GC {what} removes nothing"), all.difference(&stale.pod)?);
    }
    // The runtime forgot this attachment and its namespace is gone: what is left of it lies on the node.
    stale.pod.vanish()?;
    let listed = json!([{"containerID": valid.container, "ifname": valid.ifname()}]);
    findings.expect_none("GC with a list succeeds", collect(&valid, Some(listed))?.wrong_as_silent_success());
    findings.expect_none("GC removes the unlisted", before_stale.node_additions()?);
    unharmed("a listed attachment", &valid, findings)?;
    unharmed("another network's attachment", &elsewhere, findings)?;

    findings.expect_none("GC with an empty list succeeds", collect(&valid, Some(json!([])))?.wrong_as_silent_success());
    unharmed("another network's attachment, with an empty list", &elsewhere, findings)?;
    if case.subject.role == Role::Main {
        scripts::ipam("ipam-collects", "true", "true")?;
        let asking = Attachment { extra: json!({"ipam": {"type": "ipam-collects"}}), ..valid };
        asking.call("GC").env("CNI_PATH", scripts::path_with_scripts(case)).run()?;
        let verbs = scripts::ipam_verbs();
        findings.expect("GC asks the IPAM plugin", verbs == ["GC"], || format!("{verbs:?}"));
    }
    Ok(())
}

/// GC with a list under both names that runtimes use.
pub(super) fn collect(attachment: &Attachment<'_>, valid: Option<Value>) -> Result<Answer, Trouble> {
    let mut conf = attachment.conf("GC");
    if let (Some(valid), Some(conf)) = (valid, conf.as_object_mut()) {
        conf.insert("cni.dev/attachments".to_owned(), valid.clone());
        conf.insert("cni.dev/valid-attachments".to_owned(), valid);
    }
    attachment.call("GC").input(conf.to_string()).run()
}

fn unharmed(what: &str, attachment: &Attachment<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    findings.expect_none(format!("GC leaves alone: {what}"), attachment.check()?.wrong_as_silent_success());
    Ok(())
}
