//! Files that vanish unless they are kept.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes names of one process differ.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// A file on its way to another name.
#[derive(Debug)]
pub(super) struct Temporary(PathBuf);

/// Makes a file beside `target`, so that renaming is enough.
pub(super) fn temporary(target: &Path) -> io::Result<(Temporary, File)> {
    let mut name = target.as_os_str().to_owned();
    name.push(format!(".{}-{}.new", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    let path = PathBuf::from(name);
    // What a killed process of the same number left.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = File::options().write(true).create_new(true).open(&path)?;
    Ok((Temporary(path), file))
}

impl Temporary {
    /// Its name for now.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Gives it its name.
    pub(super) fn keep_as(self, target: &Path) -> io::Result<()> {
        fs::rename(&self.0, target)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After `keep_as` there is nothing under this name any more.
        drop(fs::remove_file(&self.0));
    }
}
