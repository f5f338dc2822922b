//! The program of VM processes, opened once: a supervisor that lives across an upgrade starts the one it began with.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name of the launcher's file, in the folder of this program.
pub const LAUNCHER: &str = "tapvisor-launcher";

/// The launcher's file, open since it was found: an update in between changes nothing.
#[derive(Debug, Clone)]
pub struct LauncherFile {
    path: PathBuf,
    file: Arc<File>,
}

impl LauncherFile {
    /// Opens the launcher in the folder of this program.
    ///
    /// # Errors
    /// When it is not there or may not be read.
    pub fn next_to_this_program() -> io::Result<Self> {
        let path = launcher_path();
        Ok(Self { file: Arc::new(File::open(&path)?), path })
    }

    /// The path at which it was found.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A descriptor to execute: the same file even if its path was replaced since, or is not visible to the child.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub(crate) fn to_execute(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }
}

/// The path at which the launcher's program is expected: next to this one.
#[must_use]
pub fn launcher_path() -> PathBuf {
    own_folder().join(LAUNCHER)
}

/// The folder of this program, which holds our plugins too.
#[must_use]
pub fn own_folder() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.parent().map(std::path::Path::to_path_buf).unwrap_or_default()
}
