//! What the threads count that do not serve DHCP.

use std::sync::{Mutex, PoisonError};

/// The counts so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counted {
    pub(crate) tftp_sent: u64,
    pub(crate) tftp_refused: u64,
    pub(crate) tftp_failed: u64,
    pub(crate) tftp_bytes: u64,
    pub(crate) http_answered: u64,
    pub(crate) http_refused: u64,
    pub(crate) http_bytes: u64,
    pub(crate) reloads_refused: u64,
}

/// Shared by these threads.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<Counted>);

impl Counts {
    pub(crate) fn read(&self) -> Counted {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts something.
    pub(crate) fn add(&self, change: impl FnOnce(&mut Counted)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
