//! A rate limit on what a guest, or a process that a guest may have taken over, makes the host do or log.

use std::time::Duration;

/// A token bucket over the caller's clock, which counts what it refuses.
#[derive(Debug, Clone)]
pub struct RateLimit {
    burst: u64,
    per_second: u64,
    left: u64,
    /// Up to when the refill was counted.
    counted: Duration,
    left_out: u64,
}

impl RateLimit {
    /// A full bucket of `burst` units that refills by `per_second` units.
    #[must_use]
    pub fn new(burst: u64, per_second: u64) -> Self {
        Self { burst, per_second, left: burst, counted: Duration::ZERO, left_out: 0 }
    }

    /// Takes `amount` units at the time `now`, which never goes back. Returns how many units were refused since the last
    /// success, or `None` if these are refused as well.
    pub fn take(&mut self, now: Duration, amount: u64) -> Option<u64> {
        let seconds = now.saturating_sub(self.counted).as_secs();
        self.left = self.left.saturating_add(seconds.saturating_mul(self.per_second)).min(self.burst);
        self.counted = self.counted.saturating_add(Duration::from_secs(seconds));
        match self.left.checked_sub(amount) {
            Some(left) => {
                self.left = left;
                Some(std::mem::take(&mut self.left_out))
            }
            None => {
                self.left_out = self.left_out.saturating_add(amount);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_through_and_then_so_much_a_second() {
        let mut limit = RateLimit::new(10, 2);
        let at = Duration::from_millis;
        assert_eq!(limit.take(at(0), 8), Some(0));
        assert_eq!((limit.take(at(0), 3), limit.take(at(900), 3)), (None, None));
        assert_eq!(limit.take(at(1000), 4), Some(6));
        assert_eq!(limit.take(at(1000), 1), None);
        // An hour of silence brings back a burst and no more.
        assert_eq!(limit.take(at(3_600_000), 11), None);
        assert_eq!(limit.take(at(3_600_000), 10), Some(12));
    }
}
