//! Folders for what is on its way into the store: each process has its own, locked while it works, and removed with it.
//!
//! Names are random, for several hosts' processes of one number may share a store. What a killed process left is removed by
//! the next one that imports.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use locks::{Lock, Locks};

use super::blob::{self, BlobName, Hashing};
use super::{ImageError, system};

/// Folder below the store for what is not complete yet.
const FOLDER: &str = "incoming";
/// Attempts to lock a new folder: a sweep by another process may remove it first.
const ATTEMPTS: usize = 10;

/// A folder of this process below the store; removed when this is dropped.
#[derive(Debug)]
pub(super) struct Staging {
    folder: PathBuf,
    count: AtomicU64,
    _open: File,
    _lock: Lock,
}

impl Staging {
    /// Makes a folder in the store, and removes those of processes that were killed.
    pub(super) fn new(store: &Path, locks: &Locks) -> Result<Self, ImageError> {
        let above = store.join(FOLDER);
        sweep(&above, locks);
        for _ in 0..ATTEMPTS {
            let folder = above.join(random().map_err(system("read", "/dev/urandom"))?);
            let make = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
            make(&folder).map_err(system("make folder", &folder))?;
            let open = match File::open(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                open => open.map_err(system("open", &folder))?,
            };
            let target = open.metadata().map_err(system("examine", &folder))?;
            let Ok(lock) = locks.lock(&target, Duration::from_secs(1)) else { continue };
            // A process that sweeps may have had it between the two.
            let blobs = folder.join("blobs/sha256");
            match folder.exists().then(|| make(&blobs)) {
                Some(made) => made.map_err(system("make folder", &blobs))?,
                None => continue,
            }
            return Ok(Self { folder, count: AtomicU64::new(0), _open: open, _lock: lock });
        }
        Err(system("keep a folder in", above)(io::ErrorKind::ResourceBusy.into()))
    }

    /// The folder, a layout as far as blobs go.
    pub(super) fn path(&self) -> &Path {
        &self.folder
    }

    /// A new file, readable by its owner alone.
    pub(super) fn file(&self) -> Result<(PathBuf, File), ImageError> {
        let path = self.folder.join(self.count.fetch_add(1, Ordering::Relaxed).to_string());
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
        Ok((path.clone(), file.map_err(system("make", &path))?))
    }

    /// Takes in a blob, under its digest only once that is proven. One that the store has whole is not copied again.
    pub(super) fn store<R: io::Read>(
        &self,
        name: &BlobName,
        store: &Path,
        open: impl FnOnce() -> Result<R, ImageError>,
    ) -> Result<(), ImageError> {
        let (ours, path) = (name.path(store), name.path(&self.folder));
        if path.exists() || blob::is_whole(&ours, name) && fs::hard_link(&ours, &path).is_ok() {
            return Ok(());
        }
        let (fresh, mut file) = self.file()?;
        let mut reader = Hashing::new(open()?);
        let copied = io::copy(&mut reader, &mut file).and_then(|_| file.sync_all());
        copied.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => ImageError::malformed(format!("blob {name}"), error.to_string()),
            _ => system("write", &fresh)(error),
        })?;
        reader.finish(name)?;
        fs::rename(&fresh, &path).map_err(system("name", path))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next import.
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// Removes the folders of processes that were killed.
fn sweep(above: &Path, locks: &Locks) {
    for entry in fs::read_dir(above).into_iter().flatten().flatten() {
        let Ok(folder) = File::open(entry.path()) else { continue };
        let lock = folder.metadata().map(|target| locks.lock(&target, Duration::ZERO));
        if let Ok(Ok(_lock)) = lock
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!("cannot remove {}: {error}", entry.path().display());
        }
    }
}

fn random() -> io::Result<String> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}
