//! Locks of devices.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a device. One whose user panicked is as good as before: its registers hold values, not invariants.
pub(crate) fn lock<T>(device: &Mutex<T>) -> MutexGuard<'_, T> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}
