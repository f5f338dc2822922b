//! Files on the host: written whole or not at all, removed without complaint when they are gone already.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Replaces a file by renaming, so that a reader sees the old content or the new; one that is equal already is left alone.
/// Returns whether something was written.
///
/// # Errors
/// The system's.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<bool> {
    let is_same = fs::read(path).is_ok_and(|found| found == content);
    if is_same && fs::metadata(path)?.permissions().mode() & 0o777 == mode {
        return Ok(false);
    }
    let fresh = temporary_name(path);
    let written = fs::write(&fresh, content)
        .and_then(|()| fs::set_permissions(&fresh, fs::Permissions::from_mode(mode)))
        .and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        remove(&fresh)?;
    }
    written.map(|()| true)
}

/// A name in the same folder that no runtime takes for a configuration or a plugin.
fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tapvisor-new"))
}

/// Removes a file that may be gone.
///
/// # Errors
/// The system's.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: NODE-3
    #[test]
    fn a_file_is_replaced_by_renaming_and_only_when_it_differs() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tapvisor");
        assert!(replace(&path, b"one", 0o755).unwrap());
        let inode = || fs::metadata(&path).unwrap().ino();
        let first = inode();
        assert!(!replace(&path, b"one", 0o755).unwrap());
        assert_eq!(inode(), first);
        assert!(replace(&path, b"two", 0o755).unwrap());
        assert_ne!(inode(), first, "a program that runs keeps its file");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
    }
}
