//! Locks for files and namespaces, kept in a folder that only its owner may enter; and bounded waiting for any locked file.
//!
//! *Guarantees.* Two processes that lock one target wait for each other, by whatever path they opened it. No other user can
//! hold or delay a lock, for no other user can open its file. The kernel releases a lock with the process that holds it; the
//! file that a killed process leaves is used again by the next one, or removed by [`Locks::sweep`].
//! *Assumptions.* The target stays open while it is locked, so that its inode number is not used again.

mod wait;

use std::fmt;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use wait::{LockKind, lock_file};

/// Where the locks of this host are.
pub const HOST_FOLDER: &str = "/run/tapvisor/locks";

/// Most bytes of a lock's file that are read: a process number and a name.
const MOST_BYTES: u64 = 64;

/// A folder of locks.
#[derive(Debug, Clone)]
pub struct Locks {
    folder: PathBuf,
}

/// An exclusive lock, held until this is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    /// The lock's file and its path, or nothing where the folder itself is locked.
    file: Option<(File, PathBuf)>,
    _folder: File,
}

/// Why a target could not be locked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum LockError {
    /// Another process holds the lock.
    #[error("{holder} has held the lock for {} s", .patience.as_secs())]
    Busy {
        holder: Holder,
        /// How long we waited.
        patience: Duration,
    },
    /// The folder belongs to another user.
    #[error("{folder} belongs to uid {found}, expected uid {expected}: remove it")]
    Owner {
        folder: PathBuf,
        found: u32,
        /// The user of this process.
        expected: u32,
    },
    /// The system failed.
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The process that holds a lock, as it wrote down itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holder(Option<String>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(process) => write!(f, "process {process}"),
            None => f.write_str("another process"),
        }
    }
}

impl Default for Locks {
    fn default() -> Self {
        Self::new(HOST_FOLDER)
    }
}

impl Locks {
    /// Locks in `folder`, which is made when the first lock is taken.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Locks a target that the caller keeps open. Waits for each process that holds the lock for at most `patience`.
    ///
    /// # Errors
    /// When another process holds the lock for that long, or the folder cannot be used.
    pub fn lock(&self, target: &Metadata, patience: Duration) -> Result<Lock, LockError> {
        self.make_folder()?;
        let path = self.path_of(target);
        // Those who find room for a file share the folder; those who find none have it for themselves.
        let folder = File::open(&self.folder).map_err(failed("open", &self.folder))?;
        wait::lock((&folder, &self.folder), LockKind::Shared, patience, || Holder(None))?;
        loop {
            let file = match open(&path) {
                Err(error) if is_full(&error) => break,
                file => file.map_err(failed("open", &path))?,
            };
            wait::lock((&file, &path), LockKind::Exclusive, patience, || holder(&file))?;
            if is_at(&file, &path) {
                note_holder(&file);
                return Ok(Lock { file: Some((file, path)), _folder: folder });
            }
            // Else the last holder removed the file between our opening and our locking it.
        }
        // The kernel releases the shared lock first, so that two that find no room do not wait for each other.
        wait::lock((&folder, &self.folder), LockKind::Exclusive, patience, || Holder(None))?;
        Ok(Lock { file: None, _folder: folder })
    }

    /// The lock's file of a target.
    #[must_use]
    pub fn path_of(&self, target: &Metadata) -> PathBuf {
        self.folder.join(format!("{:x}-{}", target.dev(), target.ino()))
    }

    /// Removes the files that killed processes left, as far as it can.
    ///
    /// # Errors
    /// When the folder cannot be listed; the first file that cannot be removed, after all others were tried.
    pub fn sweep(&self) -> Result<(), LockError> {
        let listing = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            listing => listing.map_err(failed("list", &self.folder))?,
        };
        let mut result = Ok(());
        for entry in listing {
            let path = entry.map_err(failed("list", &self.folder))?.path();
            let Ok(file) = OpenOptions::new().read(true).open(&path) else { continue };
            if file.try_lock().is_ok() && is_at(&file, &path) {
                result = result.and(fs::remove_file(&path).map_err(failed("remove", &path)));
            }
        }
        result
    }

    /// The folder, this user's and closed to all others, whatever the umask and an earlier release made of it.
    fn make_folder(&self) -> Result<(), LockError> {
        const MODE: u32 = 0o700;
        let folder = &self.folder;
        let mut made = DirBuilder::new().mode(MODE).create(folder);
        // The first call since the host has booted.
        if made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            if let Some(above) = folder.parent() {
                fs::create_dir_all(above).map_err(failed("make folder", above))?;
            }
            made = DirBuilder::new().mode(MODE).create(folder);
        }
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("make folder", folder)(error));
            }
            _ => {}
        }
        let found = fs::symlink_metadata(folder).map_err(failed("examine", folder))?;
        if !found.is_dir() {
            return Err(failed("use", folder)(io::ErrorKind::NotADirectory.into()));
        }
        // The owner of /proc/self is the user of this process.
        let expected = fs::metadata("/proc/self").map_err(failed("examine", Path::new("/proc/self")))?.uid();
        if found.uid() != expected {
            return Err(LockError::Owner { folder: folder.clone(), found: found.uid(), expected });
        }
        if found.mode() & 0o777 != MODE {
            fs::set_permissions(folder, fs::Permissions::from_mode(MODE)).map_err(failed("close", folder))?;
        }
        Ok(())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Under the lock: a process that has opened the file already finds it gone and makes a new one. One that cannot be removed
        // now is used again or swept.
        if let Some((_, path)) = &self.file
            && fs::remove_file(path).is_err()
        {
            // An error that does not last must leave nothing.
            drop(fs::remove_file(path));
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem
    )
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn is_at(file: &File, path: &Path) -> bool {
    let id = |metadata: Metadata| (metadata.dev(), metadata.ino());
    matches!((file.metadata().map(id), fs::symlink_metadata(path).map(id)), (Ok(ours), Ok(there)) if ours == there)
}

/// Writes down who holds the lock, for those who wait. A full file system does not keep anybody from working.
fn note_holder(mut file: &File) {
    let program = std::env::args_os().next().unwrap_or_default();
    let program = program.to_string_lossy();
    let name = program.rsplit('/').next().unwrap_or_default();
    drop(file.set_len(0).and_then(|()| file.write_all(format!("{} ({name})", std::process::id()).as_bytes())));
}

fn holder(file: &File) -> Holder {
    let mut text = String::new();
    let is_read = file.take(MOST_BYTES).read_to_string(&mut text).is_ok_and(|bytes| bytes > 0);
    Holder(is_read.then_some(text))
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> LockError + 'a {
    move |source| LockError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const NOW: Duration = Duration::ZERO;

    struct Bench {
        folder: tempfile::TempDir,
        locks: Locks,
    }

    fn bench() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let locks = Locks::new(folder.path().join("run/locks"));
        fs::write(folder.path().join("target"), "").unwrap();
        Bench { folder, locks }
    }

    impl Bench {
        fn target(&self) -> Metadata {
            fs::metadata(self.folder.path().join("target")).unwrap()
        }

        fn files(&self) -> usize {
            fs::read_dir(self.folder.path().join("run/locks")).unwrap().count()
        }
    }

    #[test]
    fn a_second_holder_is_told_of_the_first_and_nothing_is_left() {
        let bench = bench();
        let first = bench.locks.lock(&bench.target(), NOW).unwrap();
        let error = bench.locks.lock(&bench.target(), NOW).unwrap_err().to_string();
        assert!(error.starts_with(&format!("process {} (", std::process::id())), "{error}");
        drop(first);
        drop(bench.locks.lock(&bench.target(), NOW).unwrap());
        assert_eq!(bench.files(), 0);
    }

    #[test]
    fn a_lock_on_the_target_itself_delays_no_call() {
        let bench = bench();
        let target = File::open(bench.folder.path().join("target")).unwrap();
        target.lock().unwrap();
        drop(bench.locks.lock(&bench.target(), NOW).unwrap());
    }

    // spec: CNI-LOCK-2
    #[test]
    fn the_folder_is_closed_to_others_whatever_it_was() {
        let bench = bench();
        let folder = bench.folder.path().join("run/locks");
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let _lock = bench.locks.lock(&bench.target(), NOW).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn the_first_call_makes_the_folder_above_or_names_it() {
        let bench = bench();
        let above = bench.folder.path().join("run");
        fs::write(&above, "").unwrap();
        let error = bench.locks.lock(&bench.target(), NOW).unwrap_err().to_string();
        assert_eq!(error, format!("cannot make folder {}", bench.folder.path().join("run/locks").display()));
        fs::remove_file(&above).unwrap();
        // As a call leaves it that is killed between the two folders.
        fs::create_dir(&above).unwrap();
        drop(bench.locks.lock(&bench.target(), NOW).unwrap());
        fs::remove_dir_all(&above).unwrap();
        drop(bench.locks.lock(&bench.target(), NOW).unwrap());
        assert_eq!(bench.files(), 0);
    }

    // spec: CNI-LOCK-2
    #[test]
    fn what_cannot_be_removed_keeps_no_other_file_from_being_swept() {
        let bench = bench();
        drop(bench.locks.lock(&bench.target(), NOW).unwrap());
        let folder = bench.folder.path().join("run/locks");
        // Whatever the order of the listing is, some file comes after some folder.
        for index in 0..16 {
            fs::create_dir(folder.join(format!("1-{index}"))).unwrap();
            fs::write(folder.join(format!("2-{index}")), "").unwrap();
        }
        let error = bench.locks.sweep().unwrap_err().to_string();
        assert!(error.contains("1-"), "{error}");
        assert_eq!(bench.files(), 16, "only the folders are left");
    }

    // spec: CNI-LOCK-2
    #[test]
    fn what_a_killed_process_left_is_locked_again_and_swept() {
        let bench = bench();
        drop(bench.locks.lock(&bench.target(), NOW).unwrap());
        let path = bench.locks.path_of(&bench.target());
        // A process that holds the lock and is killed.
        let mut holder = Command::new("flock");
        holder.arg(&path).args(["sh", "-c", "echo ready; exec sleep 60"]).stdout(std::process::Stdio::piped());
        let mut holder = holder.spawn().unwrap();
        let mut ready = [0; 6];
        holder.stdout.take().unwrap().read_exact(&mut ready).unwrap();
        assert!(matches!(bench.locks.lock(&bench.target(), NOW), Err(LockError::Busy { .. })));
        bench.locks.sweep().unwrap();
        assert_eq!(bench.files(), 1, "a lock that is held is not swept");
        let children = format!("/proc/{0}/task/{0}/children", holder.id());
        for child in fs::read_to_string(children).unwrap().split_whitespace() {
            assert!(Command::new("kill").args(["-9", child]).status().unwrap().success());
        }
        holder.kill().unwrap();
        holder.wait().unwrap();
        // The kernel closes the files of a killed process in its own time.
        bench.locks.lock(&bench.target(), Duration::from_secs(10)).map(std::mem::forget).unwrap();
        bench.locks.sweep().unwrap();
        assert_eq!(bench.files(), 1, "a lock that was forgotten is held by this process");
    }

    #[test]
    fn those_who_wait_get_the_lock_one_after_the_other() {
        let bench = bench();
        let (target, inside) = (bench.target(), std::sync::atomic::AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let _lock = bench.locks.lock(&target, Duration::from_secs(60)).unwrap();
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(bench.files(), 0);
    }
}
