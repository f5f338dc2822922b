//! Group 4: configurations that are none.

use serde_json::{Value, json};

use super::Case;
use crate::conformance::attachment::{Attachment, merge};
use crate::conformance::facts::Snapshot;
use crate::conformance::findings::Findings;
use crate::conformance::trouble::Trouble;

/// The specification's codes: incompatible version, failed to decode, invalid configuration.
const VERSION: u64 = 1;
const DECODE: u64 = 6;
const INVALID: u64 = 7;

pub(super) fn run(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    let attachment = Attachment::prepare(case, 4)?;
    let before = Snapshot::of(&attachment)?;
    let good = attachment.conf("ADD");
    let text = good.to_string();
    let with = |patch: Value| {
        let mut conf = good.clone();
        merge(&mut conf, &patch);
        conf.to_string()
    };
    let without = |key: &str| {
        let mut conf = good.clone();
        let _removed = conf.as_object_mut().map(|conf| conf.remove(key));
        conf.to_string()
    };
    let cases = [
        ("no input is error 6 or 7", String::new(), &[DECODE, INVALID][..]),
        ("truncated input is error 6", text[..text.len() / 2].to_owned(), &[DECODE]),
        ("a list instead of an object is error 6 or 7", "[]".to_owned(), &[DECODE, INVALID]),
        ("a name that is a number is error 6 or 7", with(json!({"name": 5})), &[DECODE, INVALID]),
        (
            "a cniVersion that is a number is error 1, 6 or 7",
            with(json!({"cniVersion": 1})),
            &[VERSION, DECODE, INVALID],
        ),
        ("a missing name is error 7", without("name"), &[INVALID]),
        ("a name that is a path is error 7", with(json!({"name": "../x"})), &[INVALID]),
        ("an unknown version is error 1", with(json!({"cniVersion": "9.9.9"})), &[VERSION]),
        ("a version that is none is error 1, 6 or 7", with(json!({"cniVersion": "new"})), &[VERSION, DECODE, INVALID]),
        ("100,000 open brackets are error 6 or 7", "[".repeat(100_000), &[DECODE, INVALID]),
        ("1 MiB of one letter is error 6 or 7", "x".repeat(1 << 20), &[DECODE, INVALID]),
    ];
    for (check, input, codes) in cases {
        let answer = attachment.call("ADD").input(input).run()?;
        let holds = answer.error_code().is_some_and(|code| codes.contains(&code));
        findings.expect(check, holds && answer.wrong_as_failure().is_none(), || answer.shown());
    }
    findings.expect_none("a refused call changes nothing", before.difference(&attachment.pod)?);

    let unknown = attachment.call("ADD").input(with(json!({"com.example/unknown": {"a": [1]}}))).run()?;
    findings.expect("unknown keys are passed over", unknown.succeeded(), || unknown.shown());
    Ok(())
}
