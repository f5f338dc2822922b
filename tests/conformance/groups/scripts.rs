//! Programs that the suite puts on the node: the subject under its type's name, wrappers, and IPAM plugins that misbehave.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::Case;
use crate::conformance::attachment::{Attachment, Farewell};
use crate::conformance::node::shell;
use crate::conformance::subject::{Build, Role};
use crate::conformance::trouble::Trouble;

/// The suite's own folder on the node's fresh `/run`.
const FOLDER: &str = "/run/suite";
/// Where the misbehaving IPAM plugins write which verbs they got.
pub(super) const IPAM_LOG: &str = "/run/suite/ipam.log";

/// The plugin's file under the name of its type, which is how a multi-call binary knows what to be.
pub(in crate::conformance) fn under_its_type(program: &Path, plugin: &str) -> Result<PathBuf, Trouble> {
    if program.file_name().is_some_and(|name| name == plugin) {
        return Ok(program.to_owned());
    }
    std::fs::create_dir_all(FOLDER).map_err(Trouble::system("create /run/suite"))?;
    let link = Path::new(FOLDER).join(plugin);
    let program = std::fs::canonicalize(program).map_err(Trouble::system(format!("find {}", program.display())))?;
    symlink(program, &link).map_err(Trouble::system(format!("link {}", link.display())))?;
    Ok(link)
}

/// A script that executes the plugin with another umask.
pub(super) fn with_umask(program: &Path, mask: &str) -> Result<PathBuf, Trouble> {
    let name = program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    script(&format!("umask-{mask}-{name}"), &format!("umask {mask}\nexec {}\n", program.display()))
}

/// A script that executes the plugin in a working folder that exists no more.
pub(super) fn in_a_removed_folder(program: &Path) -> Result<PathBuf, Trouble> {
    let body = format!(
        "PATH=\"${{PATH:-/usr/bin:/bin}}\"\nd={FOLDER}/gone-$$\nmkdir $d && cd $d && rmdir $d\nexec {}\n",
        program.display()
    );
    script("in-a-removed-folder", &body)
}

/// Writes an executable shell script on the node. A shell does that: what this process writes a child begun meanwhile by another
/// thread holds open too, and the kernel executes no file that is being written.
pub(in crate::conformance) fn script(name: &str, body: &str) -> Result<PathBuf, Trouble> {
    let path = Path::new(FOLDER).join(name);
    let place = path.display().to_string();
    let line = "mkdir -p \"${PLACE%/*}\"; printf '#!/bin/sh\\n%s' \"$BODY\" >\"$PLACE\"; chmod 0755 \"$PLACE\"";
    shell(line, &[("PLACE", place.as_str()), ("BODY", body)]).map(|_| path)
}

/// An IPAM plugin that logs its verbs and does what `on_add` says; STATUS is answered by `on_status`.
pub(super) fn ipam(name: &str, on_add: &str, on_status: &str) -> Result<(), Trouble> {
    let body = format!(
        "cat >/dev/null\necho \"$CNI_COMMAND\" >>{IPAM_LOG}\ncase \"$CNI_COMMAND\" in\nADD) {on_add} ;;\nSTATUS) {on_status} ;;\nesac\n"
    );
    script(name, &body).map(drop)
}

/// Verbs that the misbehaving IPAM plugins got since the last call of this.
pub(super) fn ipam_verbs() -> Vec<String> {
    let verbs = std::fs::read_to_string(IPAM_LOG).unwrap_or_default().lines().map(str::to_owned).collect();
    let _absent_if_never_called = std::fs::remove_file(IPAM_LOG);
    verbs
}

/// Delegates are looked up among these first.
pub(super) fn path_with_scripts(case: &Case<'_>) -> String {
    format!("{FOLDER}:{}", case.plugin_path())
}

/// A first attachment, taken away again: plugins that make a network leave a bridge or a table for all that come after. Our
/// binding plugin may leave nothing, so it gets no such grace.
pub(super) fn warm_up(case: &Case<'_>) -> Result<(), Trouble> {
    if case.subject.build == Build::Ours && case.subject.role != Role::Main {
        return Ok(());
    }
    let attachment = Attachment::prepare(case, 999_999)?.added()?;
    attachment.del_as(Farewell::Full).map(drop)
}
