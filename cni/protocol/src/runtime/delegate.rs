//! Executing another plugin on behalf of a plugin (specification section 4).

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::exec::{ExecError, Executor};
use crate::plugin::{AttachmentKey, Verb};

/// A DHCP server may take its time; the runtime has a limit of its own.
const PATIENCE: Duration = Duration::from_secs(120);

/// Executes a plugin of CNI_PATH with this process's environment, but for the verb, and a whole configuration; what it writes
/// to standard error goes to ours. `instead` names another attachment, whose namespace is gone.
///
/// # Errors
/// When it is not found, cannot be executed, fails, or answers with something else than JSON.
pub fn delegate(
    plugin: &str,
    verb: Verb,
    conf: &[u8],
    instead: Option<&AttachmentKey>,
) -> Result<Option<Value>, ExecError> {
    let bin_dirs: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("CNI_PATH").unwrap_or_default()).collect();
    let log = Box::new(|plugin: &str, line: &str| eprintln!("{plugin}: {line}"));
    let executor = Executor { bin_dirs, log, patience: PATIENCE };
    let path = executor.find(plugin)?;
    let mut command = Command::new(&path);
    command.env("CNI_COMMAND", verb.as_str());
    if let Some(AttachmentKey { container_id, if_name }) = instead {
        command.env("CNI_CONTAINERID", container_id.as_str()).env("CNI_IFNAME", if_name.as_str()).env("CNI_NETNS", "");
    }
    executor.execute(plugin, verb, &path, command, conf.to_vec())
}
