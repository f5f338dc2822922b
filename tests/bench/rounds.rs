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

/// The variants in the order of their turns in one round: another begins each time, and over the rounds each comes after every
/// other one equally often (Williams' design). A program that fills the processor's caches makes the next one slower: with one
/// order for all rounds, one variant alone would pay for that.
pub(crate) fn turns(variants: usize, round: usize) -> impl Iterator<Item = usize> {
    // 0, 1, last, 2, last but one, …; of an odd number of variants half of the rounds go through it backwards.
    let backwards = variants % 2 == 1 && (round / variants) % 2 == 1;
    let offset = move |turn: usize| if turn % 2 == 1 { turn.div_ceil(2) } else { (variants - turn / 2) % variants };
    (0..variants).map(move |turn| {
        let turn = if backwards { variants - 1 - turn } else { turn };
        (offset(turn) + round) % variants
    })
}

#[cfg(test)]
mod order {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn each_variant_comes_after_every_other_one_equally_often() {
        for variants in 2..8 {
            let mut after: BTreeMap<(usize, usize), usize> = BTreeMap::new();
            for round in 0..2 * variants {
                let order: Vec<_> = turns(variants, round).collect();
                order.windows(2).for_each(|pair| *after.entry((pair[0], pair[1])).or_default() += 1);
                let once: std::collections::BTreeSet<_> = order.iter().collect();
                assert_eq!((order.len(), once.len()), (variants, variants));
            }
            assert_eq!(after.len(), variants * (variants - 1), "{variants}");
            assert!(after.values().all(|times| *times == 2), "{variants}: {after:?}");
        }
    }
}
