//! What happens after a VM has ended: run strategies and back-off, as a pure decision.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long a VM is kept running (`spec.runStrategy` of a VirtualMachine; a VirtualMachineInstance runs once).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// It is started again however it ended.
    Always,
    /// It is started again when it failed.
    RerunOnFailure,
    /// It is started by the user alone.
    Manual,
    /// It is not running.
    Halted,
    /// It is started once and never again.
    Once,
}

/// How a run of the guest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The guest powered itself off.
    PoweredOff,
    /// A user asked for the end.
    Stopped,
    /// The guest crashed, or its watchdog bit, or the launcher itself failed.
    Failed,
}

/// What is left of a VM that is not started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Final {
    /// It can be started again.
    Stopped,
    /// It did what it was started for.
    Succeeded,
    /// It failed and nobody starts it again by itself.
    Failed,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Start it again after the delay.
    Again {
        /// Zero unless it keeps failing before it ever runs.
        after: Duration,
    },
    /// Leave it.
    Done(Final),
}

/// Starts that failed before the guest ever ran, in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FailedStarts(pub u32);

/// Longest delay between two starts.
const LONGEST_DELAY: Duration = Duration::from_secs(300);

impl Strategy {
    /// Whether `run` starts the VM, or only takes note of it.
    #[must_use]
    pub fn starts_by_itself(self) -> bool {
        !matches!(self, Self::Manual | Self::Halted)
    }

    /// The strategy after a user's `start`: a halted VM is from then on kept running.
    #[must_use]
    pub fn after_start(self) -> Self {
        if self == Self::Halted { Self::Always } else { self }
    }

    /// The strategy after a user's `stop`: a VM that would be started again is halted.
    #[must_use]
    pub fn after_stop(self) -> Self {
        if self == Self::Always { Self::Halted } else { self }
    }
}

/// Decides what follows a run.
///
/// `ran` says whether the guest ever ran: only starts that fail before that count, and slow the next one down.
/// `spread` in 0..=1 spreads the delay over up to half of it more, so that many VMs that fail together do not start together.
#[must_use]
pub fn decide(
    strategy: Strategy,
    outcome: Outcome,
    ran: bool,
    history: FailedStarts,
    spread: f32,
) -> (Next, FailedStarts) {
    let failed_starts = match outcome {
        Outcome::Failed if !ran => FailedStarts(history.0.saturating_add(1)),
        _ => FailedStarts::default(),
    };
    let next = match (strategy, outcome) {
        (Strategy::Once, Outcome::PoweredOff | Outcome::Stopped) | (Strategy::RerunOnFailure, Outcome::PoweredOff) => {
            Next::Done(Final::Succeeded)
        }
        (Strategy::Always, Outcome::PoweredOff | Outcome::Failed) | (Strategy::RerunOnFailure, Outcome::Failed) => {
            Next::Again { after: delay(failed_starts, spread) }
        }
        (_, Outcome::Failed) => Next::Done(Final::Failed),
        (_, Outcome::PoweredOff | Outcome::Stopped) => Next::Done(Final::Stopped),
    };
    (next, failed_starts)
}

/// 10 s × n², up to half of it more, at most 300 s.
fn delay(failed_starts: FailedStarts, spread: f32) -> Duration {
    let square = u64::from(failed_starts.0).saturating_pow(2);
    let delay = Duration::from_secs(square.saturating_mul(10)).min(LONGEST_DELAY);
    delay.mul_f32(1.0 + spread.clamp(0.0, 1.0) / 2.0).min(LONGEST_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(strategy: Strategy, outcome: Outcome) -> Next {
        decide(strategy, outcome, true, FailedStarts::default(), 0.0).0
    }

    const AT_ONCE: Next = Next::Again { after: Duration::ZERO };

    #[test]
    fn the_table_of_strategies_and_ends_holds() {
        use {Final as F, Next::Done, Outcome as O, Strategy as S};
        let table = [
            (S::Always, [AT_ONCE, Done(F::Stopped), AT_ONCE]),
            (S::RerunOnFailure, [Done(F::Succeeded), Done(F::Stopped), AT_ONCE]),
            (S::Manual, [Done(F::Stopped), Done(F::Stopped), Done(F::Failed)]),
            (S::Halted, [Done(F::Stopped), Done(F::Stopped), Done(F::Failed)]),
            (S::Once, [Done(F::Succeeded), Done(F::Succeeded), Done(F::Failed)]),
        ];
        for (strategy, row) in table {
            let outcomes = [O::PoweredOff, O::Stopped, O::Failed];
            assert_eq!(outcomes.map(|outcome| next(strategy, outcome)), row, "{strategy:?}");
        }
    }

    #[test]
    fn failing_before_running_slows_down_by_the_square() {
        let mut history = FailedStarts::default();
        let mut delays = Vec::new();
        for _ in 0..7 {
            let (next, after) = decide(Strategy::Always, Outcome::Failed, false, history, 0.0);
            history = after;
            let Next::Again { after } = next else { panic!("{next:?}") };
            delays.push(after.as_secs());
        }
        assert_eq!(delays, [10, 40, 90, 160, 250, 300, 300]);
    }

    #[test]
    fn having_run_forgives_earlier_failures() {
        let (next, history) = decide(Strategy::Always, Outcome::Failed, true, FailedStarts(5), 1.0);
        assert_eq!((next, history), (AT_ONCE, FailedStarts(0)));
    }

    #[test]
    fn the_spread_adds_at_most_half_and_never_passes_the_limit() {
        let after = |spread, starts| decide(Strategy::Always, Outcome::Failed, false, FailedStarts(starts), spread).0;
        assert_eq!(after(1.0, 0), Next::Again { after: Duration::from_secs(15) });
        assert_eq!(after(7.0, 0), Next::Again { after: Duration::from_secs(15) });
        assert_eq!(after(1.0, u32::MAX), Next::Again { after: LONGEST_DELAY });
    }

    #[test]
    fn stopping_halts_what_would_come_back() {
        assert_eq!(Strategy::Always.after_stop(), Strategy::Halted);
        assert_eq!(Strategy::RerunOnFailure.after_stop(), Strategy::RerunOnFailure);
        assert_eq!(Strategy::Halted.after_start(), Strategy::Always);
        assert!(!Strategy::Manual.starts_by_itself());
    }
}
