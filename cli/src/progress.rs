//! What a user sees while VMs start: a moving line for each on a terminal, plain lines anywhere else.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use terms::{ObjectKey, visible};

use super::terminal;

/// Progress of several VMs at once, on stderr.
#[derive(Debug)]
pub(crate) struct Progress {
    all: Option<MultiProgress>,
    lines: Vec<(ObjectKey, Option<ProgressBar>)>,
}

/// How long it takes shows after a while.
const WAITING: &str = "{spinner} {prefix}: {msg} ({elapsed})";
const DONE: &str = "{prefix}: {msg}";

impl Progress {
    /// Nothing has happened yet to any of them; `text` says what is waited for.
    pub(crate) fn of(keys: impl Iterator<Item = ObjectKey>, text: &str) -> Self {
        let all = std::io::stderr().is_terminal().then(MultiProgress::new);
        let bar = |key: &ObjectKey| {
            let bar = all.as_ref()?.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template(WAITING) {
                bar.set_style(style);
            }
            bar.set_prefix(key.to_string());
            bar.set_message(visible(text).into_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            Some(bar)
        };
        let lines = keys.map(|key| (key.clone(), bar(&key))).collect();
        Self { all, lines }
    }

    /// Something was done for one of them.
    pub(crate) fn step(&self, key: &ObjectKey, text: &str) {
        match self.bar(key) {
            Some(bar) => bar.set_message(visible(text).into_owned()),
            None => terminal::say(&format!("{key}: {text}")),
        }
    }

    /// Something about one of them that is not over with the next step.
    pub(crate) fn note(&self, key: &ObjectKey, text: &str) {
        match self.bar(key) {
            Some(bar) => bar.println(visible(&format!("{key}: {text}"))),
            None => terminal::say(&format!("{key}: {text}")),
        }
    }

    /// One of them is where it should be, or never will be.
    pub(crate) fn finish(&self, key: &ObjectKey, text: &str) {
        match self.bar(key) {
            Some(bar) => {
                if let Ok(style) = ProgressStyle::with_template(DONE) {
                    bar.set_style(style);
                }
                bar.finish_with_message(visible(text).into_owned());
            }
            None => terminal::say(&format!("{key}: {text}")),
        }
    }

    /// One of them is done: its line goes, and `text` is written to stdout.
    pub(crate) fn line(&self, key: &ObjectKey, text: &str) {
        self.clear(key);
        match &self.all {
            Some(all) => all.suspend(|| terminal::line(text)),
            None => terminal::line(text),
        }
    }

    /// The line of one of them goes.
    pub(crate) fn clear(&self, key: &ObjectKey) {
        if let Some(bar) = self.bar(key) {
            bar.finish_and_clear();
        }
    }

    fn bar(&self, key: &ObjectKey) -> Option<&ProgressBar> {
        self.lines.iter().find(|(line, _)| line == key).and_then(|(_, bar)| bar.as_ref())
    }
}
