//! Waiting for a lock, for a limited time and without asking again and again.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::{Holder, LockError, failed};

/// Who else may hold a lock at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// Others of this kind.
    Shared,
    /// No other.
    Exclusive,
}

/// Locks an open file (`flock`) until it is closed; `false` if another process holds the lock for longer than `patience`.
///
/// The kernel wakes the waiting process when the lock is released: many processes may wait at once.
///
/// # Errors
/// The system's.
pub fn lock_file(file: &File, kind: LockKind, patience: Duration) -> io::Result<bool> {
    let attempt = match kind {
        LockKind::Shared => file.try_lock_shared(),
        LockKind::Exclusive => file.try_lock(),
    };
    match attempt {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) if patience.is_zero() => Ok(false),
        Err(TryLockError::WouldBlock) => wait(file, kind, patience),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Waits on a thread of its own, because `flock` has no time limit. A thread that is too late has the lock only until it closes
/// its descriptor, which is at once.
#[cold]
fn wait(file: &File, kind: LockKind, patience: Duration) -> io::Result<bool> {
    // Both descriptors are of one open file, which is what holds the lock.
    let other = file.try_clone()?;
    let (done, outcome) = mpsc::sync_channel(1);
    let work = move || {
        let locked = match kind {
            LockKind::Shared => other.lock_shared(),
            LockKind::Exclusive => other.lock(),
        };
        // First, so that the lock is released as soon as the caller closes its descriptor. The receiver is gone if this is late.
        drop(other);
        let _late = done.send(locked);
    };
    std::thread::Builder::new().name("lock".to_owned()).spawn(work)?;
    match outcome.recv_timeout(patience) {
        Ok(locked) => locked.map(|()| true),
        Err(RecvTimeoutError::Timeout) => Ok(false),
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the waiting thread ended")),
    }
}

/// As [`lock_file`]; the error names the holder.
pub(crate) fn lock(
    (file, path): (&File, &Path),
    kind: LockKind,
    patience: Duration,
    holder: impl FnOnce() -> Holder,
) -> Result<(), LockError> {
    match lock_file(file, kind, patience).map_err(failed("lock", path))? {
        true => Ok(()),
        false => Err(LockError::Busy { holder: holder(), patience }),
    }
}
