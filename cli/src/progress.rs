//! What a user sees while VMs start: a moving line for each on a terminal, plain lines anywhere else.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use terms::ObjectKey;

use super::terminal;

/// Progress of several VMs at once, on stderr.
#[derive(Debug)]
pub(crate) struct Progress {
    lines: Vec<(ObjectKey, Option<ProgressBar>)>,
}

impl Progress {
    /// Nothing has happened yet to any of them.
    pub(crate) fn of(keys: impl Iterator<Item = ObjectKey>) -> Self {
        let all = std::io::stderr().is_terminal().then(MultiProgress::new);
        let bar = |key: &ObjectKey| {
            let bar = all.as_ref()?.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}: {msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(key.to_string());
            bar.set_message("starting");
            bar.enable_steady_tick(Duration::from_millis(100));
            Some(bar)
        };
        Self { lines: keys.map(|key| (key.clone(), bar(&key))).collect() }
    }

    /// Something was done for one of them.
    pub(crate) fn step(&self, key: &ObjectKey, text: &str) {
        match self.bar(key) {
            Some(bar) => bar.set_message(text.to_owned()),
            None => terminal::say(&format!("{key}: {text}")),
        }
    }

    /// Something about one of them that is not over with the next step.
    pub(crate) fn note(&self, key: &ObjectKey, text: &str) {
        match self.bar(key) {
            Some(bar) => bar.println(format!("{key}: {text}")),
            None => terminal::say(&format!("{key}: {text}")),
        }
    }

    /// One of them is where it should be, or never will be.
    pub(crate) fn finish(&self, key: &ObjectKey, text: &str) {
        match self.bar(key) {
            Some(bar) => bar.finish_with_message(text.to_owned()),
            None => terminal::say(&format!("{key}: {text}")),
        }
    }

    fn bar(&self, key: &ObjectKey) -> Option<&ProgressBar> {
        self.lines.iter().find(|(line, _)| line == key).and_then(|(_, bar)| bar.as_ref())
    }
}
