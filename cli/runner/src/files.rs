//! Atomic replacement of files, and careful reading of files that another user could have planted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::remove::remove_tree;

/// Most bytes read from any file of the runner's; objects are limited to a fraction of it before they are written.
const MOST_BYTES: u64 = 16 << 20;

/// A file that could not be written, read or understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// A system call on the path failed.
    #[error("cannot {verb} {path}")]
    Io {
        /// What was tried: `read`, `write` and the like.
        verb: &'static str,
        /// The file or folder that was accessed.
        path: PathBuf,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
    /// The content is not what this version writes.
    #[error("{path} is damaged")]
    Content {
        /// Path of the damaged file.
        path: PathBuf,
        /// What the JSON parser expected and found, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// A link, a folder, or something endless.
    #[error("{path} is not a regular file of at most {MOST_BYTES} bytes")]
    NotAFile {
        /// Path that leads to something else.
        path: PathBuf,
    },
}

impl FileError {
    /// Whether the file is simply not there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Ties an I/O error to the path and the deed.
pub fn at<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError::Io { verb, path: path.to_owned(), source }
}

/// Replaces `path` by `content`: writes a temporary file in the same folder, then renames it over `path`.
///
/// # Errors
/// When the system refuses any step; `path` is then unchanged, and the temporary file is removed.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let temporary = with_suffix(path, ".new");
    let written = write_new(&temporary, content, mode).and_then(|()| fs::rename(&temporary, path));
    written.map_err(|source| {
        // The first failure is the one to tell; the next command removes what this cannot.
        let _ = fs::remove_file(&temporary);
        FileError::Io { verb: "write", path: path.to_owned(), source }
    })
}

/// [`replace`] with a value as indented JSON, readable by root alone.
///
/// # Errors
/// As [`replace`].
pub(crate) fn replace_json<T: Serialize>(path: &Path, value: &T) -> Result<(), FileError> {
    let mut text =
        serde_json::to_vec_pretty(value).map_err(|source| FileError::Content { path: path.to_owned(), source })?;
    text.push(b'\n');
    replace(path, &text, 0o600)
}

/// Reads a regular file without following a link in its last component.
///
/// # Errors
/// When it is absent, is no regular file, or is larger than anything the runner keeps.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let file = open_regular(path)?;
    let mut content = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut content).map_err(at("read", path))?;
    if content.len() as u64 > MOST_BYTES {
        return Err(FileError::NotAFile { path: path.to_owned() });
    }
    Ok(content)
}

/// Opens a regular file for reading without following a link, nor waiting on a fifo, in its last component.
///
/// # Errors
/// When it is absent or no regular file.
pub fn open_regular(path: &Path) -> Result<File, FileError> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(at("open", path))?;
    match file.metadata().map_err(at("examine", path))?.is_file() {
        true => Ok(file),
        false => Err(FileError::NotAFile { path: path.to_owned() }),
    }
}

/// [`read`], then JSON.
///
/// # Errors
/// As [`read`], and when the content is not what `T` demands.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    serde_json::from_slice(&read(path)?).map_err(|source| FileError::Content { path: path.to_owned(), source })
}

/// Makes a folder and those above it, with the given mode for the last.
///
/// # Errors
/// When the system refuses.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(at("make folder", path))?;
    // The mode asked of mkdir passes through the caller's umask; this does not.
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(at("set the mode of", path))
}

/// Removes a folder with all in it, however deep; absent is as good as removed.
///
/// # Errors
/// When the system refuses.
pub(crate) fn remove_dir(path: &Path) -> Result<(), FileError> {
    remove_tree(path).map_err(at("remove", path))
}

/// Removes a file; absent is as good as removed.
///
/// # Errors
/// When the system refuses.
pub(crate) fn remove_file(path: &Path) -> Result<(), FileError> {
    absent_is_fine(fs::remove_file(path)).map_err(at("remove", path))
}

/// Entries of a folder by name, in order; an absent folder has none.
///
/// # Errors
/// When the folder cannot be read.
pub fn entries(path: &Path) -> Result<Vec<PathBuf>, FileError> {
    let listing = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.map_err(at("list", path))?,
    };
    let mut paths: Vec<_> =
        listing.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>().map_err(at("list", path))?;
    paths.sort();
    Ok(paths)
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    absent_is_fine(fs::remove_file(path))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacing_leaves_the_new_content_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status.json");
        replace(&path, b"one", 0o600).unwrap();
        replace(&path, b"two", 0o640).unwrap();
        assert_eq!(read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(entries(dir.path()).unwrap(), [path]);
    }

    #[test]
    fn a_full_disk_keeps_the_old_content_alone() {
        // A folder in the way makes the rename fail after the new content was written, as a full disk does before.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status.json");
        fs::create_dir(&path).unwrap();
        let error = replace(&path, b"content", 0o600).unwrap_err();
        assert!(error.to_string().starts_with("cannot write "), "{error}");
        assert_eq!(entries(dir.path()).unwrap(), [path]);
    }

    #[test]
    fn planted_links_and_fifos_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let (secret, link, fifo) = (dir.path().join("secret"), dir.path().join("link"), dir.path().join("fifo"));
        fs::write(&secret, "x").unwrap();
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(matches!(read(&link), Err(FileError::Io { .. })));
        assert!(matches!(read(&fifo), Err(FileError::NotAFile { .. })));
        assert!(matches!(read(dir.path()), Err(FileError::NotAFile { .. })));
    }

    #[test]
    fn what_is_absent_is_removed_already() {
        let dir = tempfile::tempdir().unwrap();
        remove_file(&dir.path().join("a")).unwrap();
        remove_dir(&dir.path().join("b")).unwrap();
        assert!(read(&dir.path().join("a")).unwrap_err().is_absent());
        assert!(entries(&dir.path().join("b")).unwrap().is_empty());
    }
}
