//! What a group of checks found: how many were made, and which failed why.

use std::collections::BTreeMap;

/// Collects the outcome of named checks; a name is one line of the table's footnotes.
#[derive(Debug, Default, Clone)]
pub struct Findings {
    made: usize,
    failed: BTreeMap<String, Vec<String>>,
}

impl Findings {
    /// Records a check; `seen` is asked only when it failed.
    pub(crate) fn expect(&mut self, check: impl Into<String>, holds: bool, seen: impl FnOnce() -> String) {
        self.made += 1;
        if !holds {
            self.failed.entry(check.into()).or_default().push(seen());
        }
    }

    /// Records a check that has failed.
    pub(crate) fn fail(&mut self, check: impl Into<String>, seen: impl Into<String>) {
        let seen = seen.into();
        self.expect(check, false, || seen);
    }

    /// Records a check given as nothing, or what is wrong.
    pub(crate) fn expect_none(&mut self, check: impl Into<String>, wrong: Option<String>) {
        let seen = wrong.clone();
        self.expect(check, wrong.is_none(), || seen.unwrap_or_default());
    }

    /// Adds another's findings, naming where they were made.
    pub(crate) fn absorb(&mut self, other: Self, place: &str) {
        self.made += other.made;
        for (check, seen) in other.failed {
            let seen = seen.into_iter().map(|text| format!("{place}: {text}"));
            self.failed.entry(check).or_default().extend(seen);
        }
    }

    /// How many checks were made.
    #[must_use]
    pub fn made(&self) -> usize {
        self.made
    }

    /// The failed checks with what was seen.
    #[must_use]
    pub fn failed(&self) -> &BTreeMap<String, Vec<String>> {
        &self.failed
    }
}
