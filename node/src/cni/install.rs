//! The plugins' file in the runtime's folder of plugins.

use std::io;
use std::path::Path;

use crate::files;

/// The name of the plugin that is chained behind every pod network.
pub(crate) const PLUGIN: &str = "tapvisor";
/// The names that runtimes execute the file by; each is a plugin.
const NAMES: [&str; 2] = [PLUGIN, "tapvisor-bridge"];

/// Puts the file `source` into `folder` under each name by renaming: a plugin that runs keeps its file. Returns whether one was
/// another.
///
/// # Errors
/// The system's.
pub(crate) fn install(source: &Path, folder: &Path) -> io::Result<bool> {
    let file = std::fs::read(source)?;
    NAMES.iter().try_fold(false, |changed, name| Ok(files::replace(&folder.join(name), &file, 0o755)? || changed))
}

/// Removes the plugins.
///
/// # Errors
/// The system's.
pub(crate) fn remove(folder: &Path) -> io::Result<()> {
    NAMES.iter().try_for_each(|name| files::remove(&folder.join(name)))
}
