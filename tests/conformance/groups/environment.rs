//! Groups 2 and 3: every variable that a verb needs, and the names it must not accept.

use super::Case;
use crate::conformance::attachment::Attachment;
use crate::conformance::call::Answer;
use crate::conformance::facts::Snapshot;
use crate::conformance::findings::Findings;
use crate::conformance::trouble::Trouble;

/// CNI specification 1.1.0, section 2: parameters of each operation.
const NEEDED: [(&str, &[&str]); 3] = [
    ("ADD", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
    ("CHECK", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
    ("DEL", &["CNI_CONTAINERID", "CNI_IFNAME"]),
];

/// The specification's "invalid necessary environment variables".
const BAD_ENVIRONMENT: u64 = 4;

/// Group 2: each missing variable alone, and all together.
pub(super) fn missing(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    let attachment = Attachment::prepare(case, 2)?;
    let before = Snapshot::of(&attachment)?;
    for (verb, needed) in NEEDED.iter().filter(|(verb, _)| case.has(verb)) {
        for variable in *needed {
            let answer = attachment.call(verb).without(variable).run()?;
            refused(findings, &format!("{verb} without {variable} is error 4 and names it"), &answer, &[variable]);
        }
        let bare = needed.iter().fold(attachment.call(verb), |call, variable| call.without(variable)).run()?;
        refused(findings, &format!("{verb} without any of them is error 4 and names all"), &bare, needed);
    }
    let unknown = attachment.call("PAINT").run()?;
    refused(findings, "an unknown CNI_COMMAND is error 4", &unknown, &[]);
    let idle = attachment.call("ADD").without("CNI_COMMAND").run()?;
    let is_result = idle.succeeded() && idle.stdout.contains("cniVersion");
    findings.expect("without CNI_COMMAND there is no result", !is_result && !idle.hung, || idle.shown());
    findings.expect_none("a refused call changes nothing", before.difference(&attachment.pod)?);
    Ok(())
}

/// Group 3: names that would be paths, options or too long.
pub(super) fn bad_names(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    let containers = [
        ("empty", ""),
        ("with a slash", "a/b"),
        ("leading dot", "../x"),
        ("leading dash", "-a"),
        ("with a space", "a b"),
    ];
    let interfaces = [
        ("empty", ""),
        ("of 16 bytes", "abcdefghijklmnop"),
        (".", "."),
        ("..", ".."),
        ("with a slash", "a/b"),
        ("with a colon", "a:b"),
        ("with a space", "a b"),
    ];
    let attachment = Attachment::prepare(case, 3)?;
    let before = Snapshot::of(&attachment)?;
    for verb in ["ADD", "CHECK", "DEL"].iter().filter(|verb| case.has(verb)) {
        for (kind, id) in containers {
            let answer = attachment.call(verb).env("CNI_CONTAINERID", id).run()?;
            refused(findings, &format!("{verb}: a container id {kind} is error 4"), &answer, &[]);
        }
        for (kind, name) in interfaces {
            let answer = attachment.call(verb).env("CNI_IFNAME", name).run()?;
            refused(findings, &format!("{verb}: an interface name {kind} is error 4"), &answer, &[]);
        }
    }
    findings.expect_none("a refused call changes nothing", before.difference(&attachment.pod)?);
    Ok(())
}

fn refused(findings: &mut Findings, check: &str, answer: &Answer, named: &[&str]) {
    let names = |variable: &&str| answer.stdout.contains(*variable);
    let holds = answer.error_code() == Some(BAD_ENVIRONMENT) && named.iter().all(names);
    findings.expect(check, holds, || answer.shown());
}
