//! Writing to the terminal, or to whatever stands in its place.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use serde_json::{Value, json};

/// How the terminal was before a console took it; here for those who end the program while it has it.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Writes a line to stdout. A reader that has gone away (`tapvisor ps | head -1`) is no failure.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{text}"));
}

/// Writes a line to stderr. It may be a log on a full disk, or a reader that has gone away: the standard macro would
/// panic there.
pub(crate) fn say(text: &str) {
    // A terminal in a console's hands is in the middle of the guest's line, and goes back to its start only when told.
    let is_raw = before().is_some();
    let mut out = std::io::stderr().lock();
    drop(if is_raw { write!(out, "\r\n{text}\r\n") } else { writeln!(out, "{text}") });
}

/// Whether somebody sits at both ends.
pub(crate) fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// A terminal that passes every key on; restored when dropped, also when a panic unwinds.
#[derive(Debug)]
pub(crate) struct Raw(());

impl Raw {
    /// Takes the terminal.
    pub(crate) fn enter() -> io::Result<Self> {
        let mut raw = tcgetattr(io::stdin())?;
        *before() = Some(raw.clone());
        // From here on it is put back, whether it can be changed or not.
        let entered = Self(());
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw)?;
        Ok(entered)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the terminal back if a console has it.
pub(crate) fn restore() {
    if let Some(before) = before().take() {
        // A terminal that has gone away has nothing to restore.
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &before);
    }
}

fn before() -> MutexGuard<'static, Option<Termios>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
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
