//! Sections of Markdown, and the file that holds them.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::machine;
use crate::rounds::{Ratio, Spread};

/// A table with what holds for all of it.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) title: &'static str,
    /// The finer target that measures it.
    pub(crate) command: &'static str,
    pub(crate) head: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
    pub(crate) gates: Vec<Gate>,
    pub(crate) notes: Vec<String>,
}

/// A promise and what was measured.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) what: String,
    pub(crate) measured: String,
    pub(crate) wanted: String,
    pub(crate) green: bool,
    /// Whether the figure is the same on every processor: then the program fails when the gate is red.
    pub(crate) is_exact: bool,
}

impl Gate {
    /// A figure that must not be above a bound.
    pub(crate) fn at_most(what: impl Into<String>, measured: f64, bound: f64, unit: &str) -> Self {
        let (measured_text, wanted) = (format!("{measured:.2} {unit}"), format!("≤ {bound} {unit}"));
        Self { what: what.into(), measured: measured_text, wanted, green: measured <= bound, is_exact: false }
    }

    /// The same gate of a figure that does not depend on the processor.
    pub(crate) fn exact(self) -> Self {
        Self { is_exact: true, ..self }
    }

    /// A figure that must not be below a bound.
    pub(crate) fn at_least(what: impl Into<String>, measured: f64, bound: f64, unit: &str) -> Self {
        let (measured_text, wanted) = (format!("{measured:.2} {unit}"), format!("≥ {bound} {unit}"));
        Self { what: what.into(), measured: measured_text, wanted, green: measured >= bound, is_exact: false }
    }
}

impl Section {
    /// The red gates of figures that do not depend on the processor.
    pub(crate) fn broken(&self) -> impl Iterator<Item = &Gate> {
        self.gates.iter().filter(|gate| gate.is_exact && !gate.green)
    }

    pub(crate) fn to_markdown(&self, quick: bool) -> String {
        let mut text = format!("### {}\n\n", self.title);
        let quickly = if quick { " QUICK=1" } else { "" };
        let _ = writeln!(text, "`make {}{quickly}`, {}.\n", self.command, machine::today_and_here());
        let _ = writeln!(text, "| {} |\n|{}", self.head.join(" | "), "---|".repeat(self.head.len()));
        for row in &self.rows {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        if !self.gates.is_empty() {
            text.push_str("\n| gate | measured | wanted | |\n|---|---|---|---|\n");
        }
        for Gate { what, measured, wanted, green, .. } in &self.gates {
            let colour = if *green { "🟢" } else { "🔴" };
            let _ = writeln!(text, "| {what} | {measured} | {wanted} | {colour} |");
        }
        text.push('\n');
        for note in &self.notes {
            let _ = writeln!(text, "- {note}");
        }
        text
    }
}

/// Puts the section of a group in place of its earlier one of the same processor model; else behind those of other models, or
/// at the end.
pub(crate) fn replace(path: &Path, group: &str, model: &str, text: &str) {
    let (begin, end) = (format!("<!-- bench {group}, {model} -->\n"), format!("<!-- end {group}, {model} -->\n"));
    let old = std::fs::read_to_string(path).unwrap_or_default();
    let section = format!("{begin}{text}{end}");
    let new = match (old.find(&begin), old.find(&end)) {
        (Some(from), Some(to)) if from < to => format!("{}{section}{}", &old[..from], &old[to + end.len()..]),
        _ => {
            let (before, after) = old.split_at(after_group(&old, group).unwrap_or(old.len()));
            format!("{before}{}{section}{after}", if before.is_empty() { "" } else { "\n" })
        }
    };
    std::fs::write(path, new).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

/// Where the last section of a group ends.
fn after_group(text: &str, group: &str) -> Option<usize> {
    let from = text.rfind(&format!("<!-- end {group}, "))?;
    Some(from + text[from..].find('\n')? + 1)
}

/// Milliseconds: least / **median** / 99th percentile, and the middle half in brackets.
pub(crate) fn milliseconds(spread: Spread) -> String {
    let [min, quarter, median, three_quarters, p99] =
        [spread.min, spread.quarter, spread.median, spread.three_quarters, spread.p99].map(short);
    format!("{min} / **{median}** / {p99} [{quarter}–{three_quarters}]")
}

/// Milliseconds with as many digits as mean something.
pub(crate) fn short(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1e3;
    match milliseconds {
        ..10.0 => format!("{milliseconds:.2}"),
        ..100.0 => format!("{milliseconds:.1}"),
        _ => format!("{milliseconds:.0}"),
    }
}

/// By medians (by least values).
pub(crate) fn times(ratio: Ratio) -> String {
    format!("{:.2} × ({:.2} ×)", ratio.medians, ratio.minima)
}

/// 1234567 as 1 234 567.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let (head, tail) = digits.split_at(first);
    let mut parts: Vec<&str> = if head.is_empty() { Vec::new() } else { vec![head] };
    parts.extend(tail.as_bytes().chunks(3).filter_map(|chunk| std::str::from_utf8(chunk).ok()));
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_processor_model_keeps_its_last_run() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |group, model, text: &str| replace(file.path(), group, model, text);
        write("wiring", "A", "old\n");
        write("chain", "A", "chain\n");
        write("wiring", "B", "other\n");
        write("wiring", "A", "new\n");
        let section = |group: &str, model: &str, text: &str| {
            format!("<!-- bench {group}, {model} -->\n{text}\n<!-- end {group}, {model} -->\n")
        };
        let expected =
            [section("wiring", "A", "new"), section("wiring", "B", "other"), section("chain", "A", "chain")].join("\n");
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), expected);
    }
}
