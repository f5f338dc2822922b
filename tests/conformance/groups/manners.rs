//! Groups 5 and 6: nothing but the answer on stdout, nothing left in the process world, no leaning on the caller's habits.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::{Case, scripts};
use crate::conformance::attachment::{Attachment, Farewell};
use crate::conformance::call::{Answer, Call};
use crate::conformance::facts::Snapshot;
use crate::conformance::findings::Findings;
use crate::conformance::trouble::Trouble;

/// `TMPDIR` of the plugins in group 6.
const TEMPORARY: &str = "/run/suite/tmp";

/// Group 5.
pub(super) fn output(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    let mut attachment = Attachment::prepare(case, 5)?;
    let added = attachment.add()?;
    let is_one_object = serde_json::from_str::<Value>(&added.stdout).is_ok_and(|value| value.is_object());
    findings.expect("ADD prints one JSON object", added.succeeded() && is_one_object, || added.shown());
    for verb in ["CHECK", "STATUS", "GC", "DEL"].into_iter().filter(|verb| case.has(verb)) {
        let answer = attachment.call(verb).run()?;
        findings.expect(format!("{verb} prints nothing"), answer.stdout.is_empty() || !answer.succeeded(), || {
            answer.shown()
        });
        findings.expect(format!("{verb} succeeds"), answer.succeeded(), || answer.shown());
    }
    let mut conf = attachment.conf("ADD");
    if let Some(conf) = conf.as_object_mut() {
        conf.remove("name");
    }
    let refused = attachment.call("ADD").input(conf.to_string()).run()?;
    findings.expect_none("an error is one JSON object on stdout and exit code not 0", refused.wrong_as_failure());
    Ok(())
}

/// Group 6.
pub(super) fn traces(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    scripts::warm_up(case)?;
    std::fs::create_dir_all(TEMPORARY).map_err(Trouble::system("create a folder for temporary files"))?;
    let (processes, namespaces) = (processes(), entries("/run/netns"));
    let attachment = Attachment::prepare(case, 6)?;
    let before = Snapshot::of(&attachment)?;

    cycle(findings, "works with an empty PATH", &attachment, |call| call.env("PATH", ""))?;
    cycle(findings, "works with only the CNI variables", &attachment, |call| call.without("PATH").without("CNI_ARGS"))?;
    let script = scripts::in_a_removed_folder(&case.program)?;
    cycle(findings, "works in a folder that was removed", &attachment, |call| Call {
        program: script.clone(),
        ..call
    })?;
    for mask in ["000", "077"] {
        let script = scripts::with_umask(&case.program, mask)?;
        let masked = |call: Call| Call { program: script.clone(), ..call };
        cycle(findings, &format!("works with umask {mask}"), &attachment, masked)?;
    }
    let script = scripts::with_umask(&case.program, "000")?;
    Call { program: script, ..attachment.call("ADD") }.run()?;
    findings.expect_none("state files are not for others to write, whatever the umask", open_files(Path::new("/run")));
    attachment.del()?;

    findings.expect_none("nothing is left in the kernel or the state folders", before.difference(&attachment.pod)?);
    let left: Vec<_> = self::processes().difference(&processes).cloned().collect();
    findings.expect("no process is left", left.is_empty(), || left.join(", "));
    let left = entries(TEMPORARY);
    findings.expect("no temporary file is left", left.is_empty(), || format!("{left:?}"));
    let left = entries("/run/netns").len() - namespaces.len();
    findings.expect("no namespace is left", left == 1, || format!("{left} new, 1 of them ours"));
    Ok(())
}

fn cycle(
    findings: &mut Findings,
    check: &str,
    attachment: &Attachment<'_>,
    change: impl Fn(Call) -> Call,
) -> Result<(), Trouble> {
    let added = change(attachment.call("ADD").env("TMPDIR", TEMPORARY)).run()?;
    let known = Attachment { result: serde_json::from_str(&added.stdout).ok(), ..attachment.clone() };
    let deleted = change(known.call("DEL").env("TMPDIR", TEMPORARY)).run()?;
    let wrong = |answer: &Answer| (!answer.succeeded()).then(|| answer.shown());
    findings.expect_none(check, wrong(&added).or(wrong(&deleted)));
    if !deleted.succeeded() {
        attachment.del_as(Farewell::WithoutResult)?;
    }
    Ok(())
}

/// Processes in this node's mount namespace, which only the suite's own programs and theirs can be in.
fn processes() -> BTreeSet<String> {
    let own = std::fs::read_link("/proc/thread-self/ns/mnt").ok();
    entries("/proc")
        .into_iter()
        .filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()))
        .filter(|pid| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok() == own)
        .filter(|pid| *pid != std::process::id().to_string())
        .map(|pid| format!("{pid} {}", std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim()))
        .collect()
}

fn entries(folder: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// State that others than the owner may write.
fn open_files(folder: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::read_dir(folder).into_iter().flatten().flatten().find_map(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return (!path.ends_with("suite") && !path.ends_with("netns")).then(|| open_files(&path)).flatten();
        }
        let mode = entry.metadata().ok()?.permissions().mode();
        (mode & 0o022 != 0 && path.is_file()).then(|| format!("{} has mode {:o}", path.display(), mode & 0o777))
    })
}
