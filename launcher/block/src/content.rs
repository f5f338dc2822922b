//! Content that the launcher reads when a VM starts: files of the launch file itself, or of volumes mounted in the pod.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use machine::{Content, FileSet, MAX_FILES_BYTES};

/// The largest file that is read: a Secret holds less (1 MiB).
const MAX_FILE_BYTES: u64 = 4 << 20;
/// More files than an image of the largest size has room for: each takes a sector.
const MAX_FILES: usize = 8192;
/// The depth of folders that ISO 9660 allows.
const MAX_DEPTH: usize = 8;

/// Files by their path, whose parts are joined by `/`.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The bytes of a file's content.
pub(crate) fn bytes_of(content: &Content) -> io::Result<Cow<'_, [u8]>> {
    let paths = match content {
        Content::Bytes(bytes) => return Ok(bytes.into()),
        Content::FirstOf(paths) => paths,
    };
    for path in paths {
        match File::open(path) {
            Ok(file) => return read(file, path).map(Cow::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(of(path, &error)),
        };
    }
    let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    Err(io::Error::new(io::ErrorKind::NotFound, format!("cloud-init data: none of {} exists", names.join(", "))))
}

/// The files of a set.
///
/// # Errors
/// One cannot be read, is too large, or has a name that is not UTF-8.
pub fn files_of(set: &FileSet) -> io::Result<Files> {
    let mut files = Files::new();
    match set {
        FileSet::Folder(folder) => Walk { files: &mut files, bytes: 0 }.folder(folder, "", 0)?,
        FileSet::Listed(listed) => {
            for (name, content) in listed {
                files.insert(name.clone(), bytes_of(content)?.into_owned());
            }
        }
    }
    Ok(files)
}

/// A folder being read, and how much of it was.
struct Walk<'a> {
    files: &'a mut Files,
    bytes: u64,
}

impl Walk<'_> {
    /// Links are followed: the kubelet places each file as a link into the folder `..data`, which it replaces as a whole.
    fn folder(&mut self, folder: &Path, prefix: &str, depth: usize) -> io::Result<()> {
        if depth >= MAX_DEPTH {
            return Err(io::Error::other(format!("{} lies deeper than {MAX_DEPTH} folders", folder.display())));
        }
        for entry in std::fs::read_dir(folder).map_err(|error| of(folder, &error))? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                return Err(io::Error::other(format!("{} has a name that is not UTF-8", path.display())));
            };
            // The kubelet's own; no key of an object begins like this.
            if depth == 0 && name.starts_with("..") {
                continue;
            }
            let kind = std::fs::metadata(&path).map_err(|error| of(&path, &error))?;
            let name = format!("{prefix}{name}");
            if kind.is_dir() {
                self.folder(&path, &format!("{name}/"), depth + 1)?;
            } else if kind.is_file() {
                self.file(&path, name)?;
            } else {
                return Err(io::Error::other(format!("{} is neither a file nor a folder", path.display())));
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &PathBuf, name: String) -> io::Result<()> {
        let content = read(File::open(path).map_err(|error| of(path, &error))?, path)?;
        self.bytes += content.len() as u64;
        self.files.insert(name, content);
        if self.bytes > MAX_FILES_BYTES || self.files.len() > MAX_FILES {
            let limit = format!("{MAX_FILES} files with {MAX_FILES_BYTES} bytes");
            return Err(io::Error::other(format!("{} is beyond the limit of {limit} on a disk", path.display())));
        }
        Ok(())
    }
}

fn read(file: File, path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| of(path, &error))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("{} is larger than {MAX_FILE_BYTES} bytes", path.display())));
    }
    Ok(bytes)
}

fn of(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, *file).unwrap();
        }
        folder
    }

    fn read_all(folder: &Path) -> io::Result<Files> {
        files_of(&FileSet::Folder(folder.into()))
    }

    // spec: VOL-6
    #[test]
    fn a_mounted_folder_is_read_as_the_kubelet_lays_it_out() {
        let folder = folder(&["..2026_11_30/key", "..2026_11_30/below/other"]);
        symlink("..2026_11_30", folder.path().join("..data")).unwrap();
        for name in ["key", "below"] {
            symlink(format!("..data/{name}"), folder.path().join(name)).unwrap();
        }
        let files = read_all(folder.path()).unwrap();
        let names: Vec<_> = files.keys().map(String::as_str).collect();
        assert_eq!(names, ["below/other", "key"]);
        assert_eq!(files["key"], b"..2026_11_30/key");
    }

    // spec: VOL-6
    #[test]
    fn more_than_a_disk_holds_is_refused_by_its_file() {
        let deep = folder(&["a/b/c/d/e/f/g/h/i"]);
        assert!(read_all(deep.path()).unwrap_err().to_string().ends_with("deeper than 8 folders"));
        let large = folder(&["large"]);
        File::options().write(true).open(large.path().join("large")).unwrap().set_len((4 << 20) + 1).unwrap();
        assert!(read_all(large.path()).unwrap_err().to_string().ends_with("large is larger than 4194304 bytes"));
        let many = folder(&["a", "b", "c", "d", "e"]);
        for name in ["a", "b", "c", "d", "e"] {
            File::options().write(true).open(many.path().join(name)).unwrap().set_len(4 << 20).unwrap();
        }
        assert!(read_all(many.path()).unwrap_err().to_string().contains("is beyond the limit of 8192 files"));
        let pipe = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&pipe.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read_all(pipe.path()).unwrap_err().to_string().ends_with("pipe is neither a file nor a folder"));
        assert!(read_all(Path::new("/nowhere")).unwrap_err().to_string().starts_with("/nowhere: "));
    }
}
