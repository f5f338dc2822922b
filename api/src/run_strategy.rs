//! Run strategies (`spec.runStrategy`) and what follows the end of a guest: a pure decision without clock or I/O.
//!
//! Flow: how a guest ended → [`decide`] → start it again after a delay, or leave it in a final phase.
//! The local supervisor and the controllers use the same function, so a VM behaves alike with and without a cluster.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When a VirtualMachine runs (`spec.runStrategy`); a VirtualMachineInstance runs `Once`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunStrategy {
    /// Always: it is started again however it ended.
    Always,
    /// Until it ends well: it is started again after a failure.
    RerunOnFailure,
    /// Once.
    Once,
    /// When a user starts it.
    Manual,
    /// Never.
    Halted,
}

/// How a run of the guest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RunOutcome {
    /// The guest powered itself off.
    PoweredOff,
    /// A user asked for the end.
    Stopped,
    /// The guest crashed, its watchdog fired, or the launcher failed.
    Failed,
}

/// Phase of a VM that is not started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FinalPhase {
    /// It can be started again.
    Stopped,
    /// The guest powered off and its strategy starts it no more.
    Succeeded,
    /// The guest failed and its strategy does not start it again.
    Failed,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// Start it again after the delay.
    Again {
        /// Zero unless it keeps failing before it ever runs.
        after: Duration,
    },
    /// Leave it.
    Done(FinalPhase),
}

/// Starts that failed before the guest ever ran, in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FailedStarts(pub u32);

/// Longest delay between two starts.
const LONGEST_DELAY: Duration = Duration::from_secs(300);

impl RunStrategy {
    /// Whether the VM starts without a user's `start`.
    #[must_use]
    pub fn starts_by_itself(self) -> bool {
        !matches!(self, Self::Manual | Self::Halted)
    }

    /// The strategy after a user's `start`: `Halted` becomes `Always`.
    #[must_use]
    pub fn after_start(self) -> Self {
        if self == Self::Halted { Self::Always } else { self }
    }

    /// The strategy after a user's `stop`: `Always` becomes `Halted`, others stay.
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
    strategy: RunStrategy,
    outcome: RunOutcome,
    ran: bool,
    history: FailedStarts,
    spread: f32,
) -> (NextStep, FailedStarts) {
    let failed_starts = match outcome {
        RunOutcome::Failed if !ran => FailedStarts(history.0.saturating_add(1)),
        _ => FailedStarts::default(),
    };
    let next = match (strategy, outcome) {
        (RunStrategy::Once, RunOutcome::PoweredOff | RunOutcome::Stopped)
        | (RunStrategy::RerunOnFailure, RunOutcome::PoweredOff) => NextStep::Done(FinalPhase::Succeeded),
        (RunStrategy::Always, RunOutcome::PoweredOff | RunOutcome::Failed)
        | (RunStrategy::RerunOnFailure, RunOutcome::Failed) => NextStep::Again { after: delay(failed_starts, spread) },
        (_, RunOutcome::Failed) => NextStep::Done(FinalPhase::Failed),
        (_, RunOutcome::PoweredOff | RunOutcome::Stopped) => NextStep::Done(FinalPhase::Stopped),
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

    fn next(strategy: RunStrategy, outcome: RunOutcome) -> NextStep {
        decide(strategy, outcome, true, FailedStarts::default(), 0.0).0
    }

    const AT_ONCE: NextStep = NextStep::Again { after: Duration::ZERO };

    #[test]
    fn the_table_of_strategies_and_ends_holds() {
        use {FinalPhase as F, NextStep::Done, RunOutcome as O, RunStrategy as S};
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
            let (next, after) = decide(RunStrategy::Always, RunOutcome::Failed, false, history, 0.0);
            history = after;
            let NextStep::Again { after } = next else { panic!("{next:?}") };
            delays.push(after.as_secs());
        }
        assert_eq!(delays, [10, 40, 90, 160, 250, 300, 300]);
    }

    #[test]
    fn having_run_forgives_earlier_failures() {
        let (next, history) = decide(RunStrategy::Always, RunOutcome::Failed, true, FailedStarts(5), 1.0);
        assert_eq!((next, history), (AT_ONCE, FailedStarts(0)));
    }

    #[test]
    fn the_spread_adds_at_most_half_and_never_passes_the_limit() {
        let after =
            |spread, starts| decide(RunStrategy::Always, RunOutcome::Failed, false, FailedStarts(starts), spread).0;
        assert_eq!(after(1.0, 0), NextStep::Again { after: Duration::from_secs(15) });
        assert_eq!(after(7.0, 0), NextStep::Again { after: Duration::from_secs(15) });
        assert_eq!(after(1.0, u32::MAX), NextStep::Again { after: LONGEST_DELAY });
    }

    #[test]
    fn stopping_halts_what_would_come_back() {
        assert_eq!(RunStrategy::Always.after_stop(), RunStrategy::Halted);
        assert_eq!(RunStrategy::RerunOnFailure.after_stop(), RunStrategy::RerunOnFailure);
        assert_eq!(RunStrategy::Halted.after_start(), RunStrategy::Always);
        assert!(!RunStrategy::Manual.starts_by_itself());
    }
}
