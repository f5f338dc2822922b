//! Running a program and judging what it did, with all it said in the message when that was wrong.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A finished program.
#[derive(Debug)]
pub struct Ran {
    line: String,
    output: Output,
}

impl Ran {
    /// Runs `command` to its end.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[must_use]
    pub fn of(command: &mut Command) -> Self {
        Self::with_input(command, b"")
    }

    /// Runs `command` to its end with `input` on its standard input.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[must_use]
    pub fn with_input(command: &mut Command, input: &[u8]) -> Self {
        let line = format!("{command:?}").replace('"', "");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {line}: {error}"));
        let mut stdin = child.stdin.take().expect("stdin was asked for");
        // A program that does not read its input closes the pipe: its own business.
        let _ = stdin.write_all(input);
        drop(stdin);
        let output = child.wait_with_output().unwrap_or_else(|error| panic!("cannot wait for {line}: {error}"));
        Self { line, output }
    }

    /// The exit code, or `None` after a signal.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    /// Whether it exited with 0.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.output.status.success()
    }

    /// What it wrote to standard output.
    #[must_use]
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// What it wrote to standard error.
    #[must_use]
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// Standard output of a success.
    ///
    /// # Panics
    /// When it failed.
    #[must_use]
    pub fn text(&self) -> String {
        self.assert_ok();
        self.stdout()
    }

    /// Standard output of a success, read as JSON; nothing at all is an empty list, as `ip -j` means it.
    ///
    /// # Panics
    /// When it failed or did not write JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let text = self.text();
        if text.trim().is_empty() {
            return serde_json::Value::Array(Vec::new());
        }
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("no JSON: {error}\n{}", self.account()))
    }

    /// Demands a success.
    ///
    /// # Panics
    /// When it failed.
    pub fn assert_ok(&self) {
        assert!(self.is_ok(), "{}", self.account());
    }

    /// Demands an exit code and words that standard error holds.
    ///
    /// # Panics
    /// When it ended otherwise.
    pub fn assert_fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code(), Some(code), "{}", self.account());
        for word in words {
            assert!(self.stderr().contains(word), "{word:?} is not in standard error\n{}", self.account());
        }
    }

    /// The command line, how it ended and all it wrote.
    #[must_use]
    pub fn account(&self) -> String {
        format!("$ {}\n{}\n--- stdout\n{}\n--- stderr\n{}", self.line, self.output.status, self.stdout(), self.stderr())
    }
}

/// Asks until there is an answer; gives the time it took with it.
///
/// # Panics
/// When there was none within `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, ask: impl FnMut() -> Option<T>) -> (T, Duration) {
    wait_for_or(what, limit, ask, String::new)
}

/// As [`wait_for`]; `account` tells what explains a failure.
///
/// # Panics
/// When there was none within `limit`.
pub fn wait_for_or<T>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> Option<T>,
    account: impl FnOnce() -> String,
) -> (T, Duration) {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return (answer, start.elapsed());
        }
        if start.elapsed() >= limit {
            panic!("waited {limit:?} in vain for {what}\n{}", account());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
