//! Records of attachments whose state is outside their namespace: written before the first change, removed after the last.
//!
//! *Guarantees.* A record is one file of root's on tmpfs: it dies with the reboot that ends what it is about. It is made
//! exclusively, so two calls never share one; a process that is killed leaves either none or one that is read again.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use locks::{Holder, Lock, LockError, LockKind, Locks, lock_file};
use terms::NetworkName;

/// Separates network and key; neither contains it.
const SEPARATOR: char = '@';

/// A folder of records. Each plugin has its own.
#[derive(Debug, Clone)]
pub struct Records {
    folder: PathBuf,
    locks: Locks,
}

/// Why a record could not be written, read or removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}")]
pub struct RecordError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Records {
    /// The records in `folder`, which is made with the first of them.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>, locks: Locks) -> Self {
        Self { folder: folder.into(), locks }
    }

    /// Writes a record; `false` if there is one already, which stays as it is.
    ///
    /// # Errors
    /// When the folder or the file cannot be written; then no record is left.
    pub fn create(&self, network: &NetworkName, key: &str, contents: &[u8]) -> Result<bool, RecordError> {
        self.make_folder()?;
        let path = self.path(network, key);
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut file = match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            made => made.map_err(failed("write", &path))?,
        };
        match file.write_all(contents) {
            Ok(()) => Ok(true),
            Err(error) => {
                // What is to be reported is that it could not be written.
                drop(fs::remove_file(&path));
                Err(failed("write", &path)(error))
            }
        }
    }

    /// What a record says, if there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, network: &NetworkName, key: &str) -> Result<Option<Vec<u8>>, RecordError> {
        let path = self.path(network, key);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some).map_err(failed("read", &path)),
        }
    }

    /// Removes a record; one that is gone is no error.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, network: &NetworkName, key: &str) -> Result<(), RecordError> {
        let path = self.path(network, key);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// The keys of a network's records.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn keys(&self, network: &NetworkName) -> Result<Vec<String>, RecordError> {
        Ok(self.all()?.into_iter().filter(|(of, _)| of == network).map(|(_, key)| key).collect())
    }

    /// Network and key of every record, in order.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn all(&self) -> Result<Vec<(NetworkName, String)>, RecordError> {
        let listing = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listing => listing.map_err(failed("list", &self.folder))?,
        };
        let mut all = Vec::new();
        for entry in listing {
            let name = entry.map_err(failed("list", &self.folder))?.file_name();
            let name = name.to_string_lossy();
            let parts = name.split_once(SEPARATOR).and_then(|(of, key)| Some((of.parse().ok()?, key.to_owned())));
            all.extend(parts);
        }
        all.sort_unstable();
        Ok(all)
    }

    /// Keeps other calls of this plugin from what all of them share, until the result is dropped or the process ends.
    ///
    /// # Errors
    /// When another process holds the lock for longer than `patience`, or there can be no folder.
    pub fn lock(&self, patience: Duration) -> Result<Lock, LockError> {
        let io = |action, source| LockError::Io { action, path: self.folder.clone(), source };
        self.make_folder().map_err(|error| io(error.action, error.source))?;
        let target = fs::metadata(&self.folder).map_err(|source| io("examine", source))?;
        self.locks.lock(&target, patience)
    }

    /// Takes part in what all calls of this plugin share (`Shared`), or keeps all others from it (`Exclusive`), until the result
    /// is dropped or the process ends. The folder itself is locked: nothing is written, and no other user can open it.
    ///
    /// # Errors
    /// When other processes hold it for longer than `patience`, or there can be no folder.
    pub fn hold(&self, kind: LockKind, patience: Duration) -> Result<File, LockError> {
        let io = |action, source| LockError::Io { action, path: self.folder.clone(), source };
        let folder = match File::open(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_folder().map_err(|error| io(error.action, error.source))?;
                File::open(&self.folder)
            }
            folder => folder,
        };
        let folder = folder.map_err(|source| io("open", source))?;
        match lock_file(&folder, kind, patience).map_err(|source| io("lock", source))? {
            true => Ok(folder),
            false => Err(LockError::Busy { holder: Holder::default(), patience }),
        }
    }

    fn make_folder(&self) -> Result<(), RecordError> {
        let made = DirBuilder::new().mode(0o700).create(&self.folder);
        match made {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The first call since the host has booted.
                let above = self.folder.parent().unwrap_or(Path::new("/"));
                fs::create_dir_all(above).map_err(failed("make folder", above))?;
                let made = DirBuilder::new().mode(0o700).create(&self.folder);
                made.or_else(|error| if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })
                    .map_err(failed("make folder", &self.folder))
            }
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(failed("make folder", &self.folder)(error))
            }
            _ => Ok(()),
        }
    }

    fn path(&self, network: &NetworkName, key: &str) -> PathBuf {
        self.folder.join(format!("{network}{SEPARATOR}{key}"))
    }
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> RecordError + 'a {
    move |source| RecordError { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn bench() -> (tempfile::TempDir, Records) {
        let folder = tempfile::tempdir().unwrap();
        let locks = Locks::new(folder.path().join("locks"));
        let records = Records::new(folder.path().join("run/records"), locks);
        (folder, records)
    }

    fn network(name: &str) -> NetworkName {
        name.parse().unwrap()
    }

    // spec: L2-RECORD
    #[test]
    fn a_record_is_made_once_and_closed_to_others() {
        let (folder, records) = bench();
        let net = network("blue");
        assert!(records.create(&net, "aa", b"one").unwrap());
        assert!(!records.create(&net, "aa", b"two").unwrap());
        assert_eq!(records.read(&net, "aa").unwrap().as_deref(), Some(&b"one"[..]));
        let mode = |path: &str| fs::metadata(folder.path().join(path)).unwrap().mode() & 0o777;
        assert_eq!((mode("run/records"), mode("run/records/blue@aa")), (0o700, 0o600));
        records.remove(&net, "aa").unwrap();
        records.remove(&net, "aa").unwrap();
        assert_eq!(records.read(&net, "aa").unwrap(), None);
    }

    #[test]
    fn the_keys_of_one_network_are_not_those_of_another() {
        let (_folder, records) = bench();
        assert!(records.keys(&network("blue")).unwrap().is_empty());
        for (net, key) in [("blue", "b"), ("blue", "a"), ("blue.2", "c")] {
            assert!(records.create(&network(net), key, b"").unwrap());
        }
        assert_eq!(records.keys(&network("blue")).unwrap(), ["a", "b"]);
        assert_eq!(records.keys(&network("blue.2")).unwrap(), ["c"]);
    }

    #[test]
    fn many_take_part_in_what_is_shared_or_one_has_it_alone() {
        let (_folder, records) = bench();
        let hold = |kind| records.hold(kind, Duration::ZERO);
        let (one, two) = (hold(LockKind::Shared).unwrap(), hold(LockKind::Shared).unwrap());
        assert!(matches!(hold(LockKind::Exclusive), Err(LockError::Busy { .. })));
        drop((one, two));
        let alone = hold(LockKind::Exclusive).unwrap();
        assert!(matches!(hold(LockKind::Shared), Err(LockError::Busy { .. })));
        drop(alone);
        drop(hold(LockKind::Shared).unwrap());
    }

    #[test]
    fn the_lock_is_held_by_one_call_at_a_time() {
        let (_folder, records) = bench();
        let held = records.lock(Duration::ZERO).unwrap();
        assert!(matches!(records.lock(Duration::ZERO), Err(LockError::Busy { .. })));
        drop(held);
        drop(records.lock(Duration::ZERO).unwrap());
    }
}
