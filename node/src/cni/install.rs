//! The plugins' files in the runtime's folder of plugins.

use std::io;
use std::path::Path;

use crate::files;

/// The name of the plugin that is chained behind every pod network.
pub(crate) const PLUGIN: &str = "tapvisor";
/// The names that runtimes execute plugins by, and of their files in our image.
const FILES: [(&str, &str); 2] = [(PLUGIN, "tapvisor-cni"), ("tapvisor-bridge", "tapvisor-bridge")];

/// Puts the plugins of the folder `source` into `folder` by renaming: a plugin that runs keeps its file. Returns whether one was
/// another.
///
/// # Errors
/// The system's.
pub(crate) fn install(source: &Path, folder: &Path) -> io::Result<bool> {
    FILES.iter().try_fold(false, |changed, (name, file)| {
        let file = std::fs::read(source.join(file))?;
        Ok(files::replace(&folder.join(name), &file, 0o755)? || changed)
    })
}

/// Removes the plugins.
///
/// # Errors
/// The system's.
pub(crate) fn remove(folder: &Path) -> io::Result<()> {
    FILES.iter().try_for_each(|(name, _)| files::remove(&folder.join(name)))
}
