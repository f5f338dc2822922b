//! The one place that reads a clock; devices are given the time.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970-01-01 00:00:00 UTC.
#[expect(clippy::disallowed_methods, reason = "the edge: the guest's clock shows the host's time")]
pub(crate) fn seconds_of_unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
