//! The plugin's file in the runtime's folder of plugins.

use std::io;
use std::path::Path;

use crate::files;

/// The name that runtimes execute it by.
pub(crate) const PLUGIN: &str = "tapvisor";

/// Puts the plugin `source` into `folder` by renaming: a plugin that runs keeps its file. Returns whether it was another one.
///
/// # Errors
/// The system's.
pub(crate) fn install(source: &Path, folder: &Path) -> io::Result<bool> {
    files::replace(&folder.join(PLUGIN), &std::fs::read(source)?, 0o755)
}

/// Removes the plugin.
///
/// # Errors
/// The system's.
pub(crate) fn remove(folder: &Path) -> io::Result<()> {
    files::remove(&folder.join(PLUGIN))
}
