//! A rate limit on answers: a guest that floods the service costs no more than this.

use std::time::Duration;

/// Answers that may come at once. A client that boots needs less than ten.
const BURST: u32 = 64;
/// Time after which one more is allowed.
const REFILL: Duration = Duration::from_millis(20);

/// A token bucket over the caller's clock.
#[derive(Debug, Clone)]
pub(crate) struct RateLimit {
    left: u32,
    counted_from: Duration,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { left: BURST, counted_from: Duration::ZERO }
    }
}

impl RateLimit {
    /// Takes one answer from the bucket; `false` when it is empty. A clock that runs backwards only delays the refill.
    pub(crate) fn spend(&mut self, now: Duration) -> bool {
        let waited = now.saturating_sub(self.counted_from).as_nanos() / REFILL.as_nanos();
        let refilled = u32::try_from(waited).unwrap_or(u32::MAX);
        if refilled > 0 {
            self.left = self.left.saturating_add(refilled).min(BURST);
            self.counted_from = if self.left == BURST { now } else { self.counted_from + REFILL * refilled };
        }
        let granted = self.left > 0;
        self.left = self.left.saturating_sub(1);
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: DHCP-16
    #[test]
    fn a_flood_gets_a_burst_and_then_fifty_answers_a_second() {
        let mut limit = RateLimit::default();
        let spent =
            |limit: &mut RateLimit, ms: u64| (0..1000).filter(|_| limit.spend(Duration::from_millis(ms))).count();
        assert_eq!(spent(&mut limit, 0), 64);
        assert_eq!(spent(&mut limit, 500), 25);
        assert_eq!(spent(&mut limit, 1500), 50);
        assert_eq!(spent(&mut limit, 1500), 0);
        assert_eq!(spent(&mut limit, 100_000_000), 64);
    }

    #[test]
    fn a_clock_that_runs_backwards_does_no_harm() {
        let mut limit = RateLimit::default();
        assert!(limit.spend(Duration::from_secs(9)) && limit.spend(Duration::ZERO) && limit.spend(Duration::MAX));
    }
}
