//! Group 10: a namespace that is missing, is none, or is the plugin's own is refused before anything changes.

use super::{Case, scripts};
use crate::conformance::attachment::Attachment;
use crate::conformance::facts::{Facts, settled};
use crate::conformance::findings::Findings;
use crate::conformance::trouble::Trouble;

pub(super) fn run(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    scripts::warm_up(case)?;
    let attachment = Attachment::prepare(case, 10)?;
    std::fs::write("/run/suite/file", "")
        .or_else(|_| std::fs::create_dir_all("/run/suite"))
        .map_err(Trouble::system("prepare"))?;
    std::fs::write("/run/suite/file", "").map_err(Trouble::system("write /run/suite/file"))?;
    let own = case.node.own_netns_file()?.display().to_string();
    let cases = [
        ("a missing CNI_NETNS path", "/run/netns/missing"),
        ("a CNI_NETNS that is an ordinary file", "/run/suite/file"),
        ("a CNI_NETNS that is another kind of namespace", "/proc/self/ns/uts"),
        ("a CNI_NETNS that is a folder", "/run/netns"),
        ("a CNI_NETNS that is the plugin's own", own.as_str()),
    ];
    for (what, netns) in cases {
        let before = Facts::of_node(case.subject.shared)?;
        let answer = attachment.call("ADD").env("CNI_NETNS", netns).run()?;
        findings.expect_none(format!("{what} is an error"), answer.wrong_as_failure());
        let changed = settled(case.effort.patience, || Ok(before.difference(&Facts::of_node(case.subject.shared)?)))?;
        findings.expect_none(format!("{what} changes nothing"), changed);
    }
    Ok(())
}
