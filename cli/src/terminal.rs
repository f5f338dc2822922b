//! Writing to standard output and standard error, terminals or not.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use serde_json::{Value, json};
use terms::visible;

use super::failure::{Exit, Failure};
use super::screen;

/// How the terminal was before a console took it; here for those who end the program while it has it.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Why stdout takes no more. Written once; what comes after it is dropped.
static LOST: Mutex<Option<io::Error>> = Mutex::new(None);

/// Writes a line to stdout, with what controls a terminal written as an escape.
pub(crate) fn line(text: &str) {
    write_out(format!("{}\n", visible(text)).as_bytes());
}

/// Writes bytes to stdout as they are. After a failure nothing more is written, and [`finish`] says why.
pub(crate) fn write_out(bytes: &[u8]) {
    let mut lost = LOST.lock().unwrap_or_else(PoisonError::into_inner);
    if lost.is_none() {
        let mut out = io::stdout().lock();
        *lost = out.write_all(bytes).and_then(|()| out.flush()).err();
    }
}

impl Failure {
    /// Says it and gives the exit code.
    #[must_use]
    pub(crate) fn report(&self) -> ExitCode {
        for message in &self.messages {
            say(&format!("tapvisor: {message}"));
        }
        ExitCode::from(self.code)
    }
}

/// Whether stdout takes no more: for commands that would go on for ever.
pub(crate) fn is_lost() -> bool {
    LOST.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// Says whether everything was written to stdout. A reader that has gone away (`tapvisor ps | head -1`) is no failure.
///
/// # Errors
/// When output was lost in another way, as on a full disk.
pub(crate) fn finish() -> Result<(), Failure> {
    match LOST.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failed, format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a line to stderr. It may be a log on a full disk, or a reader that has gone away: the standard macro would
/// panic there.
pub(crate) fn say(text: &str) {
    // A terminal in a console's hands is in the middle of the guest's line, and goes back to its start only when told.
    let is_raw = before().is_some();
    let text = visible(text);
    let mut out = std::io::stderr().lock();
    drop(if is_raw { write!(out, "\r\n{text}\r\n") } else { writeln!(out, "{text}") });
}

/// Whether standard input and output are terminals.
pub(crate) fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// A terminal that passes every key on; restored when dropped, also when a panic unwinds.
#[derive(Debug)]
pub(crate) struct Raw(());

impl Raw {
    /// Keeps the terminal's settings and switches it to raw mode.
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

/// Puts the terminal back if a console has it: its lines, and the modes that the guest may have set.
pub(crate) fn restore() {
    if let Some(before) = before().take() {
        let mut out = io::stdout().lock();
        // One that has gone away has no modes.
        let _ = out.write_all(&screen::restoring()).and_then(|()| out.flush());
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
    json_line(&format!("{document:#}"));
}

/// Writes a line of JSON. Control characters occur only inside strings, so JSON escapes keep their meaning.
pub(crate) fn json_line(json: &str) {
    let mut escaped = String::with_capacity(json.len() + 1);
    for character in json.chars() {
        match u32::from(character) {
            code @ (0x7f..=0x9f) => escaped.push_str(&format!("\\u{code:04x}")),
            _ => escaped.push(character),
        }
    }
    escaped.push('\n');
    write_out(escaped.as_bytes());
}

/// Writes text whose colours are ours; [`visible`] has been at all else in it.
pub(crate) fn coloured(text: &str) {
    write_out(format!("{text}\n").as_bytes());
}

/// Columns of a terminal on stdout, 80 where it is none.
pub(crate) fn columns() -> usize {
    console::Term::stdout().size_checked().map_or(80, |(_, columns)| usize::from(columns).max(40))
}

/// Writes a table, columns two spaces apart.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) {
    for text in table_lines(head, rows) {
        line(&text);
    }
}

/// The lines of a table. A cell of several lines makes a row of as many.
pub(crate) fn table_lines(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let head: Vec<_> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let rows: Vec<Vec<String>> = rows.iter().flat_map(|row| split(row)).collect();
    let width = |column: usize| {
        let cells = rows.iter().chain([&head]).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let text = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    [&head].into_iter().chain(&rows).map(text).collect()
}

/// A row of cells of several lines as several rows.
fn split(row: &[String]) -> Vec<Vec<String>> {
    let cells: Vec<Vec<String>> =
        row.iter().map(|cell| cell.split('\n').map(|line| visible(line).replace('\t', " ")).collect()).collect();
    let height = cells.iter().map(Vec::len).max().unwrap_or(0);
    (0..height).map(|line| cells.iter().map(|cell| cell.get(line).cloned().unwrap_or_default()).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: CLI-4
    #[test]
    fn cells_of_several_lines_make_rows_and_control_nothing() {
        let rows = [vec!["web\u{1b}[31m".to_owned(), "10.0.0.1\nfd00::1".to_owned(), "x".to_owned()]];
        let lines = table_lines(&["NAME", "ADDRESSES", "Y"], &rows);
        assert_eq!(lines[1..], ["web\\u{1b}[31m  10.0.0.1   x", "               fd00::1"]);
    }
}
