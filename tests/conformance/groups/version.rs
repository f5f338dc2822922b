//! Group 1: VERSION lists the versions, needs nothing else, and does not wait for input.

use serde_json::Value;

use super::Case;
use crate::conformance::call::Call;
use crate::conformance::findings::Findings;
use crate::conformance::trouble::Trouble;

pub(super) fn run(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    let alone = Call::new(&case.program, "VERSION").input(format!("{{\"cniVersion\":\"{}\"}}", case.version)).run()?;
    let answer: Option<Value> = serde_json::from_str(&alone.stdout).ok();
    let listed: Vec<&str> = answer
        .iter()
        .flat_map(|answer| answer.get("supportedVersions").and_then(Value::as_array))
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    findings.expect("VERSION succeeds without any other variable", alone.succeeded(), || alone.shown());
    let all_listed = case.subject.versions.iter().all(|version| listed.contains(version));
    findings.expect("VERSION lists the versions it is used with", all_listed, || alone.shown());
    let own = answer.as_ref().and_then(|answer| answer.get("cniVersion")).and_then(Value::as_str);
    findings.expect("VERSION's answer has a cniVersion it lists", own.is_some_and(|own| listed.contains(&own)), || {
        alone.shown()
    });

    let waiting = Call { holds_stdin: true, ..Call::new(&case.program, "VERSION") }.run()?;
    findings.expect("VERSION answers while stdin stays open", waiting.succeeded() && !waiting.hung, || waiting.shown());
    Ok(())
}
