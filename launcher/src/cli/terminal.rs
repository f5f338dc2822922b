//! Writing to the terminal, or to whatever stands in its place.

use std::io::{IsTerminal as _, Write as _};

use serde_json::{Value, json};

/// Writes a line to stdout. A reader that has gone away (`tapvisor ps | head -1`) is no failure.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{text}"));
}

/// Writes a line to stderr. It may be a log on a full disk, or a reader that has gone away: the standard macro would
/// panic there.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stderr().lock();
    drop(writeln!(out, "{text}"));
}

/// Whether somebody sits at both ends.
pub(crate) fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Writes a listing for programs.
pub(crate) fn listing(kind: &str, items: &[Value]) {
    let document = json!({"apiVersion": "tapvisor.io/v1", "kind": kind, "items": items});
    line(&format!("{document:#}"));
}

/// Writes a table, columns two spaces apart.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) {
    let head: Vec<_> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let width = |column: usize| {
        let cells = rows.iter().chain([&head]).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    for row in [&head].into_iter().chain(rows) {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        line(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
