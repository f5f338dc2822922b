//! The program of VM processes, opened once: a supervisor that lives across an upgrade starts the one it began with.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name of the file beside this program.
pub const LAUNCHER: &str = "tapvisor-launcher";

/// The launcher's program, open.
#[derive(Debug, Clone)]
pub struct LauncherFile {
    path: PathBuf,
    file: Arc<File>,
}

impl LauncherFile {
    /// Opens the one that lies beside this program.
    ///
    /// # Errors
    /// When it is not there or may not be read.
    pub fn beside_this_program() -> io::Result<Self> {
        let path = launcher_path();
        Ok(Self { file: Arc::new(File::open(&path)?), path })
    }

    /// Where it was found.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file for execution by descriptor: this very one, also when another lies in its place by then, or when the child
    /// does not see the folders above it.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub(crate) fn to_execute(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }
}

/// Where the launcher's program is to be: beside this one.
#[must_use]
pub fn launcher_path() -> PathBuf {
    own_folder().join(LAUNCHER)
}

/// The folder of this program: our plugins lie beside it.
#[must_use]
pub fn own_folder() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.parent().map(std::path::Path::to_path_buf).unwrap_or_default()
}
