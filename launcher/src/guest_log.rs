//! A rate limit on log lines that a guest can cause: in a pod they go to the container's log, which has no limit of its own.

use std::time::Instant;

use protocol::rate_limit::RateLimit;

/// Lines at once, and lines in each second after that.
const BURST: u64 = 50;
const PER_SECOND: u64 = 1;

/// Permits log lines of one kind.
#[derive(Debug)]
pub(crate) struct GuestLog {
    limit: RateLimit,
    begun: Instant,
}

impl GuestLog {
    pub(crate) fn new() -> Self {
        Self { limit: RateLimit::new(BURST, PER_SECOND), begun: now() }
    }

    /// Whether a line may be logged now. The first one after others were refused is preceded by their number.
    pub(crate) fn permits(&mut self) -> bool {
        match self.limit.take(self.begun.elapsed(), 1) {
            Some(left_out @ 1..) => tracing::warn!(left_out, "lines that the guest caused were not logged"),
            Some(0) => {}
            None => return false,
        }
        true
    }
}

#[expect(clippy::disallowed_methods, reason = "the edge: the limit's clock")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: ISO-7
    #[test]
    fn lines_that_a_guest_causes_are_logged_at_a_bounded_rate() {
        let mut log = GuestLog::new();
        let permitted = (0..100_000).filter(|_| log.permits()).count() as u64;
        assert!((BURST..BURST + 60).contains(&permitted), "{permitted}");
    }
}
