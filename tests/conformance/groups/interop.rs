//! Group 24: a whole chain driven by `cnitool`, the specification's own runtime; with other people's plugins behind the
//! subject, too.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{Case, scripts};
use crate::conformance::attachment::{Attachment, merge};
use crate::conformance::call::Answer;
use crate::conformance::facts::Snapshot;
use crate::conformance::findings::Findings;
use crate::conformance::subject::{Build, Follower, Role};
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
        let answer = tool(case, verb, &attachment, Path::new(&case.plugin_path()), "{}")?;
        findings.expect(format!("cnitool {verb} of the chain succeeds"), answer.succeeded(), || answer.shown());
    }
    findings.expect_none("the chain's DEL leaves nothing", before.difference(&attachment.pod)?);
    for (number, follower) in case.subject.after.iter().enumerate() {
        for (release, build) in [Build::Distribution, Build::V1_9_1].into_iter().enumerate() {
            followed(case, follower, build, 242 + 2 * (2 * number + release), findings)?;
        }
    }
    Ok(())
}

/// A chain with one more plugin behind the subject must do what it does without the subject, and the subject's CHECK
/// must accept it.
fn followed(
    case: &Case<'_>,
    follower: &Follower,
    build: Build,
    number: usize,
    findings: &mut Findings,
) -> Result<(), Trouble> {
    let conf = (follower.conf)(build);
    let kind = conf.get("type").and_then(Value::as_str).unwrap_or_default();
    let (folder, release) = match build {
        Build::V1_9_1 => (cache_path("go/plugins").ok_or(Trouble::Words("HOME is not set".to_owned()))?, "1.9.1"),
        _ => (PathBuf::from("/usr/lib/cni"), "1.1.1"),
    };
    if !folder.join(kind).is_file() {
        return Err(Trouble::Words(format!("{} is missing: make setup-test", folder.join(kind).display())));
    }
    let version = if build == Build::V1_9_1 { case.version } else { case.version.min("1.0.0") };
    // Alone it also leaves on the node what it leaves for all that come after.
    let alone = Attachment::bare(case, number)?;
    write_list(&alone, &chain(case, &[], &conf), version)?;
    let without = Run::of(case, &alone, &folder, follower)?;

    let attachment = Attachment::bare(case, number + 1)?;
    let mut own = case.subject.conf.clone();
    merge(&mut own, &attachment.extra);
    write_list(&attachment, &chain(case, &[own], &conf), version)?;
    let before = Snapshot::of(&attachment)?;
    let with = Run::of(case, &attachment, &folder, follower)?;
    for (verb, with, without) in
        [("ADD", &with.add, &without.add), ("CHECK", &with.check, &without.check), ("DEL", &with.del, &without.del)]
    {
        let same = with.succeeded() == without.succeeded() && complaint(with) == complaint(without);
        let both = || format!("with: {}; without: {}", with.shown(), without.shown());
        findings.expect(format!("{kind} {release} behind it: {verb} goes as without it"), same, both);
    }
    let shown = with.shows == without.shows;
    findings.expect(format!("{kind} {release} behind it does its work"), shown && with.shows, || {
        format!("with: {}, without: {}", with.shows, without.shows)
    });
    let left = before.difference(&attachment.pod)?;
    findings.expect_none(format!("{kind} {release} behind it: DEL of the chain leaves nothing"), left);
    Ok(())
}

/// How a failure begins, without the numbers in it: where a plugin fails by itself, it fails for the same reason.
fn complaint(answer: &Answer) -> String {
    answer.stderr.chars().filter(|c| !c.is_ascii_digit()).take(30).collect()
}

/// What came of a chain.
struct Run {
    add: Answer,
    check: Answer,
    del: Answer,
    shows: bool,
}

impl Run {
    fn of(case: &Case<'_>, attachment: &Attachment<'_>, folder: &Path, follower: &Follower) -> Result<Self, Trouble> {
        let told = follower.capabilities.to_string();
        let verb = |verb| tool(case, verb, attachment, folder, &told);
        let add = verb("add")?;
        let shows = attachment.sh(follower.place, follower.shows).is_ok();
        Ok(Self { add, shows, check: verb("check")?, del: verb("del")? })
    }
}

fn chain(case: &Case<'_>, own: &[Value], last: &Value) -> Vec<Value> {
    case.subject.before.iter().chain(own).chain([last]).cloned().collect()
}

fn write_conflist(case: &Case<'_>, attachment: &Attachment<'_>) -> Result<(), Trouble> {
    let mut own = case.subject.conf.clone();
    merge(&mut own, &attachment.extra);
    let first = if case.subject.role == Role::Trailing { &[][..] } else { &case.subject.before[..] };
    let plugins: Vec<Value> = first.iter().cloned().chain([own]).collect();
    // The plugins in front may be older than the subject's newest version.
    write_list(attachment, &plugins, if first.is_empty() { case.version } else { case.version.min("1.0.0") })
}

fn write_list(attachment: &Attachment<'_>, plugins: &[Value], version: &str) -> Result<(), Trouble> {
    let list = json!({"cniVersion": version, "name": attachment.network, "plugins": plugins});
    std::fs::create_dir_all(CONF_FOLDER).map_err(Trouble::system(format!("create {CONF_FOLDER}")))?;
    let path = Path::new(CONF_FOLDER).join("10-suite.conflist");
    std::fs::write(&path, list.to_string()).map_err(Trouble::system(format!("write {}", path.display())))
}

/// Runs the tool with plugins of a release.
fn tool(
    case: &Case<'_>,
    verb: &str,
    attachment: &Attachment<'_>,
    release: &Path,
    capabilities: &str,
) -> Result<Answer, Trouble> {
    let program = cnitool().map_err(Trouble::Words)?;
    let own = case.program.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
    let output = Command::new(program)
        .args([verb, &attachment.network])
        .arg(attachment.pod.path())
        .env("NETCONFPATH", CONF_FOLDER)
        .env("CNI_PATH", format!("{own}:{}", release.display()))
        .env("CAP_ARGS", capabilities)
        .env("CNI_IFNAME", attachment.ifname())
        .stdin(Stdio::null())
        .output()
        .map_err(Trouble::system("start cnitool"))?;
    Ok(Answer::new(&output, false))
}
