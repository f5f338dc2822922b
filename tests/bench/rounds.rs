//! What rounds of measurements come to.

use std::time::Duration;

use tests::Took;

/// All runs of one variant.
#[derive(Debug, Clone, Default)]
pub(crate) struct Runs {
    took: Vec<Took>,
}

/// Of one quantity over all runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) min: Duration,
    pub(crate) quarter: Duration,
    pub(crate) median: Duration,
    pub(crate) three_quarters: Duration,
    pub(crate) p99: Duration,
}

impl Runs {
    pub(crate) fn add(&mut self, took: Took) {
        self.took.push(took);
    }

    pub(crate) fn count(&self) -> usize {
        self.took.len()
    }

    pub(crate) fn wall(&self) -> Spread {
        Spread::of(self.took.iter().map(|took| took.wall).collect())
    }

    pub(crate) fn cpu(&self) -> Spread {
        Spread::of(self.took.iter().map(|took| took.cpu).collect())
    }
}

impl Spread {
    /// Of durations, of which there is one at least.
    pub(crate) fn of(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        let at = |percent: usize| all[((all.len() - 1) * percent).div_ceil(100)];
        Self { min: all[0], quarter: at(25), median: at(50), three_quarters: at(75), p99: at(99) }
    }
}

/// `of` divided by `to`: of medians, and of the least values in parentheses, which other work on the machine disturbs less.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ratio {
    pub(crate) medians: f64,
    pub(crate) minima: f64,
}

impl Ratio {
    pub(crate) fn between(of: Spread, to: Spread) -> Self {
        let ratio = |of: Duration, to: Duration| of.as_secs_f64() / to.as_secs_f64();
        Self { medians: ratio(of.median, to.median), minima: ratio(of.min, to.min) }
    }
}

/// The variants in the order of their turns in one round: another begins each time.
pub(crate) fn turns(variants: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..variants).map(move |turn| (turn + round) % variants)
}
