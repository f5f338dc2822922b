//! The only clock the runner has; everything else is given the time.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970-01-01 UTC; 0 if the clock is set before.
#[must_use]
pub fn unix_seconds() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the edge of the program; everything below is given the time")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or(0)
}
