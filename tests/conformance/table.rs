//! Who passes what: cells, and the table as text and as Markdown.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use super::findings::Findings;
use super::groups::GROUPS;

/// What came of one subject in one group.
#[derive(Debug, Clone)]
pub enum Cell {
    /// All checks hold.
    Pass {
        /// How many.
        checks: usize,
    },
    /// Some do not.
    Fail {
        /// Failed checks with what was seen.
        failed: BTreeMap<String, Vec<String>>,
        /// How many were made.
        checks: usize,
    },
    /// The group asks for what such a plugin cannot have.
    NotApplicable(String),
    /// A requirement of the environment is missing.
    CannotRun(String),
}

impl From<Findings> for Cell {
    fn from(findings: Findings) -> Self {
        match (findings.failed().is_empty(), findings.made()) {
            (true, 0) => Self::CannotRun("no check was made".to_owned()),
            (true, checks) => Self::Pass { checks },
            (false, checks) => Self::Fail { failed: findings.failed().clone(), checks },
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass { checks } => write!(f, "pass ({checks} checks)"),
            Self::Fail { failed, checks } => write!(f, "FAIL ({} of {checks} checks)", failed.len()),
            Self::NotApplicable(reason) => write!(f, "n/a: {reason}"),
            Self::CannotRun(reason) => write!(f, "cannot run: {reason}"),
        }
    }
}

impl Cell {
    fn mark(&self) -> &'static str {
        match self {
            Self::Pass { .. } => "✓",
            Self::Fail { .. } => "✗",
            Self::NotApplicable(_) => "–",
            Self::CannotRun(_) => "?",
        }
    }
}

/// Subjects by groups, in the order in which they were added.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<(String, BTreeMap<u8, Cell>)>,
}

/// The text above the table in `RESULTS.md`.
const PREAMBLE: &str = "# Who passes what

Written by `cni-conformance --write`; a test compares the rows of our own plugins with what they do now. ✓ all checks hold,
✗ some do not (they are listed below), – the group asks for what such a plugin cannot have, ? it could not run here.
Rows 1.1.1 are the distribution's reference plugins, rows 1.9.1 that release built from source: their failures are facts,
no fault of this suite's run. Group 25, costs, is a benchmark.

";

/// Where the table is kept.
#[must_use]
pub fn results_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/RESULTS.md")
}

impl Table {
    /// All of `RESULTS.md`: new rows for the subjects of this table; the other `names` keep their rows of `old`.
    #[must_use]
    pub fn document(&self, names: &[String], old: &str) -> String {
        let titles: Vec<_> = GROUPS.iter().map(|group| format!("{} {}", group.number, group.title)).collect();
        let (mut rows, mut notes) = (String::new(), String::new());
        let new = self.markdown();
        for name in names {
            let source = if self.rows.iter().any(|(judged, _)| judged == name) { &new } else { old };
            if let Some((row, note)) = of_subject(source, name) {
                write(&mut rows, format_args!("{row}\n"));
                write(&mut notes, format_args!("\n## {name}\n\n{note}\n"));
            }
        }
        let heading: String = GROUPS.iter().map(|group| format!(" {} |", group.number)).collect();
        let rule = "---|".repeat(GROUPS.len());
        format!("{PREAMBLE}{}\n\n| subject |{heading}\n|---|{rule}\n{rows}{notes}", titles.join(" · "))
    }

    /// What a document says of one subject in one group: the mark in its row.
    #[must_use]
    pub fn mark(document: &str, subject: &str, group: u8) -> Option<String> {
        let cells = |start: &str| {
            let line = document.lines().find(|line| line.starts_with(&format!("| {start} |")))?;
            Some(line.split('|').map(str::trim).map(str::to_owned).collect::<Vec<_>>())
        };
        let column = cells("subject")?.iter().position(|cell| *cell == group.to_string())?;
        cells(subject)?.get(column).cloned()
    }

    /// Sets a cell.
    pub fn set(&mut self, subject: &str, group: u8, cell: Cell) {
        match self.rows.iter_mut().find(|(name, _)| name == subject) {
            Some((_, row)) => drop(row.insert(group, cell)),
            None => self.rows.push((subject.to_owned(), BTreeMap::from([(group, cell)]))),
        }
    }

    /// The table with marks only, then every subject's footnotes; the same each time, so a change is a visible diff.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = String::from("| subject |");
        let groups: Vec<_> =
            GROUPS.iter().filter(|group| self.rows.iter().any(|(_, row)| row.contains_key(&group.number))).collect();
        groups.iter().for_each(|group| write(&mut text, format_args!(" {} |", group.number)));
        text.push_str("\n|---|");
        groups.iter().for_each(|_| text.push_str("---|"));
        text.push('\n');
        for (name, row) in &self.rows {
            write(&mut text, format_args!("| {name} |"));
            groups.iter().for_each(|group| {
                write(&mut text, format_args!(" {} |", row.get(&group.number).map_or("", Cell::mark)))
            });
            text.push('\n');
        }
        for (name, row) in &self.rows {
            write(&mut text, format_args!("\n## {name}\n\n"));
            row.iter().for_each(|(group, cell)| footnote(&mut text, *group, cell));
        }
        text
    }

    /// The failed checks, each with the first few things seen.
    #[must_use]
    pub fn failures(&self) -> String {
        let mut text = String::new();
        for (name, row) in &self.rows {
            for (group, cell) in row {
                if let Cell::Fail { failed, .. } = cell {
                    for (check, seen) in failed {
                        write(&mut text, format_args!("{name}, group {group}: {check} [{}×]\n", seen.len()));
                        for seen in seen.iter().take(5) {
                            let short: String = seen.chars().take(1200).collect();
                            write(&mut text, format_args!("    {short}\n"));
                        }
                    }
                }
            }
        }
        text
    }
}

/// A subject's row and footnotes in a document.
fn of_subject<'a>(document: &'a str, subject: &str) -> Option<(&'a str, &'a str)> {
    let row = document.lines().find(|line| line.starts_with(&format!("| {subject} |")))?;
    let (_, rest) = document.split_once(&format!("## {subject}\n"))?;
    Some((row, rest.split("\n## ").next().unwrap_or(rest).trim()))
}

fn footnote(text: &mut String, group: u8, cell: &Cell) {
    match cell {
        Cell::Pass { .. } => {}
        Cell::Fail { failed, .. } => failed.keys().for_each(|check| write(text, format_args!("- {group} ✗ {check}\n"))),
        Cell::NotApplicable(reason) => write(text, format_args!("- {group} n/a: {reason}\n")),
        Cell::CannotRun(reason) => write(text, format_args!("- {group} not run: {reason}\n")),
    }
}

fn write(text: &mut String, args: std::fmt::Arguments<'_>) {
    let _infallible_into_memory = text.write_fmt(args);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rerun_subject_replaces_its_part_and_leaves_the_others() {
        let names = ["a".to_owned(), "b".to_owned()];
        let (mut both, mut again) = (Table::default(), Table::default());
        for name in &names {
            GROUPS.iter().for_each(|group| both.set(name, group.number, Cell::Pass { checks: 1 }));
        }
        GROUPS.iter().for_each(|group| again.set("b", group.number, Cell::NotApplicable("no".to_owned())));
        let old = both.document(&names, "");
        let new = again.document(&names, &old);
        assert_eq!(Table::mark(&new, "a", 3).as_deref(), Some("✓"));
        assert_eq!(Table::mark(&new, "b", 3).as_deref(), Some("–"));
        assert_eq!(both.document(&names, &new), old);
    }
}
