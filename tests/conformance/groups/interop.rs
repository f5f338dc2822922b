//! Group 24: a whole chain driven by `cnitool`, the specification's own runtime.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{Case, scripts};
use crate::conformance::attachment::{Attachment, merge};
use crate::conformance::call::Answer;
use crate::conformance::facts::Snapshot;
use crate::conformance::findings::Findings;
use crate::conformance::subject::Role;
use crate::conformance::trouble::Trouble;
use crate::dist::cache_path;

const CONF_FOLDER: &str = "/run/suite/net.d";

/// The tool, or why it cannot be had.
pub(super) fn cnitool() -> Result<PathBuf, String> {
    let path = cache_path("go/cnitool/cnitool").ok_or("HOME is not set")?;
    if path.is_file() { Ok(path) } else { Err(format!("{} is missing: make setup-test", path.display())) }
}

pub(super) fn run(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    scripts::warm_up(case)?;
    // Once before: what the plugins in front of the subject leave on a node is not the subject's.
    let rehearsal = Attachment::prepare(case, 240)?;
    if case.subject.role != Role::Trailing {
        rehearsal.clone().run_before("DEL", &case.subject.before)?;
    }
    write_conflist(case, &rehearsal)?;
    let attachment = if case.subject.role == Role::Trailing { rehearsal } else { Attachment::bare(case, 241)? };
    let before = Snapshot::of(&attachment)?;
    let verbs: &[&str] = if case.has("CHECK") { &["add", "check", "del"] } else { &["add", "del"] };
    for verb in verbs {
        let answer = tool(case, verb, &attachment)?;
        findings.expect(format!("cnitool {verb} of the chain succeeds"), answer.succeeded(), || answer.shown());
    }
    findings.expect_none("the chain's DEL leaves nothing", before.difference(&attachment.pod)?);
    Ok(())
}

fn write_conflist(case: &Case<'_>, attachment: &Attachment<'_>) -> Result<(), Trouble> {
    let mut own = case.subject.conf.clone();
    merge(&mut own, &attachment.extra);
    let first = if case.subject.role == Role::Trailing { &[][..] } else { &case.subject.before[..] };
    let plugins: Vec<Value> = first.iter().cloned().chain([own]).collect();
    // The plugins in front may be older than the subject's newest version.
    let version = if first.is_empty() { case.version } else { case.version.min("1.0.0") };
    let list = json!({"cniVersion": version, "name": attachment.network, "plugins": plugins});
    std::fs::create_dir_all(CONF_FOLDER).map_err(Trouble::system(format!("create {CONF_FOLDER}")))?;
    let path = Path::new(CONF_FOLDER).join("10-suite.conflist");
    std::fs::write(&path, list.to_string()).map_err(Trouble::system(format!("write {}", path.display())))
}

fn tool(case: &Case<'_>, verb: &str, attachment: &Attachment<'_>) -> Result<Answer, Trouble> {
    let program = cnitool().map_err(Trouble::Words)?;
    let own = case.program.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
    let output = Command::new(program)
        .args([verb, &attachment.network])
        .arg(attachment.pod.path())
        .env("NETCONFPATH", CONF_FOLDER)
        .env("CNI_PATH", format!("{own}:{}", case.plugin_path()))
        .env("CNI_IFNAME", attachment.ifname())
        .stdin(Stdio::null())
        .output()
        .map_err(Trouble::system("start cnitool"))?;
    Ok(Answer::new(&output, false))
}
