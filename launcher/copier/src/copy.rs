//! Copies of files with holes.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// What is read at once, and the least that becomes a hole: a block of the usual file systems times 16.
const BLOCK_BYTES: usize = 64 << 10;
/// The launcher and its group may read a copy.
const MODE: u32 = 0o440;

/// A file that could not be copied.
#[derive(Debug)]
pub(crate) struct CopyError {
    path: PathBuf,
    source: io::Error,
}

impl fmt::Display for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.source)
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> CopyError {
    move |source| CopyError { path: path.to_owned(), source }
}

/// Copies a file, or the files in a folder, to the same path below `folder`.
///
/// # Errors
/// The file that is absent, cannot be read, or does not fit.
pub(crate) fn below(folder: &Path, path: &Path) -> Result<(), CopyError> {
    let target = folder.join(path.strip_prefix("/").unwrap_or(path));
    if !fs::metadata(path).map_err(at(path))?.is_dir() {
        return file(path, &target, MODE);
    }
    fs::create_dir_all(&target).map_err(at(&target))?;
    for entry in fs::read_dir(path).map_err(at(path))? {
        let entry = entry.map_err(at(path))?;
        if fs::metadata(entry.path()).is_ok_and(|found| found.is_file()) {
            file(&entry.path(), &target.join(entry.file_name()), MODE)?;
        }
    }
    Ok(())
}

/// Copies one file; it gets its name once it is complete.
///
/// # Errors
/// The file that cannot be read, or does not fit.
pub(crate) fn file(source: &Path, target: &Path, mode: u32) -> Result<(), CopyError> {
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).map_err(at(folder))?;
    }
    let mut name = target.file_name().map(OsString::from).unwrap_or_default();
    name.push(".part");
    let part = target.with_file_name(name);
    // Of a container that was ended, perhaps without permission to write it again.
    drop(fs::remove_file(&part));
    let from = File::open(source).map_err(at(source))?;
    let to = File::create_new(&part).map_err(at(&part))?;
    contents(&from, &to).map_err(at(source))?;
    to.set_permissions(Permissions::from_mode(mode)).map_err(at(&part))?;
    fs::rename(&part, target).map_err(at(target))
}

/// Copies contents to an empty file; blocks of zeros stay holes.
fn contents(from: &File, to: &File) -> io::Result<()> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut offset = 0;
    loop {
        let count = match from.read_at(&mut block, offset) {
            Ok(0) => return to.set_len(offset),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let read = block.get(..count).unwrap_or_default();
        if read.iter().any(|byte| *byte != 0) {
            to.write_all_at(read, offset)?;
        }
        offset = offset.saturating_add(count as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    // spec: CTRL-35
    #[test]
    fn a_copy_has_the_bytes_and_holes_where_there_are_only_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let (source, target) = (folder.path().join("disk.img"), folder.path().join("out"));
        let mut bytes = vec![0; 8 << 20];
        bytes[5_000_000..5_000_003].copy_from_slice(b"end");
        bytes.push(7);
        fs::write(&source, &bytes).unwrap();
        below(&target, &source).unwrap();
        let copy = target.join(source.strip_prefix("/").unwrap());
        assert!(fs::read(&copy).unwrap() == bytes);
        let found = fs::metadata(&copy).unwrap();
        assert_eq!((found.mode() & 0o777, found.blocks() * 512 < 1 << 20), (MODE, true));
        // Again, as after a container that was started again, with what an ended one left.
        fs::write(copy.with_file_name("disk.img.part"), "half").unwrap();
        below(&target, &source).unwrap();
        assert_eq!(fs::read_dir(copy.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn the_files_of_a_folder_are_copied_and_what_is_absent_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (disk, target) = (folder.path().join("disk"), folder.path().join("out"));
        fs::create_dir_all(disk.join("more")).unwrap();
        fs::write(disk.join("a.img"), "a").unwrap();
        below(&target, &disk).unwrap();
        let copies = target.join(disk.strip_prefix("/").unwrap());
        let names: Vec<_> = fs::read_dir(&copies).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!((names, fs::read_to_string(copies.join("a.img")).unwrap()), (vec!["a.img".into()], "a".to_owned()));
        let error = below(&target, &disk.join("absent.img")).unwrap_err().to_string();
        assert!(error.ends_with("disk/absent.img: No such file or directory (os error 2)"), "{error}");
    }
}
