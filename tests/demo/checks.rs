//! The table of checks: one line each as it passes, the whole account when it does not.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What was checked so far.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    passed: u32,
    failed: u32,
}

impl Checks {
    /// Begins a part of the table.
    pub(crate) fn title(&self, text: &str) {
        println!("\n{text}");
    }

    /// Runs a check, which panics when it fails and otherwise says what it saw. Says whether it passed.
    pub(crate) fn check(&mut self, name: &str, act: impl FnOnce() -> String) -> bool {
        let start = Instant::now();
        // The message is printed below, once.
        std::panic::set_hook(Box::new(|_| {}));
        let outcome = catch_unwind(AssertUnwindSafe(act));
        let _ = std::panic::take_hook();
        let seconds = start.elapsed().as_secs_f32();
        match outcome {
            Ok(seen) => {
                self.passed += 1;
                println!("  ok     {seconds:6.2} s  {name:24} {seen}");
                true
            }
            Err(panic) => {
                self.failed += 1;
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without a word");
                println!("  FAILED {seconds:6.2} s  {name:24} {text}");
                false
            }
        }
    }

    /// The last line and the exit code.
    pub(crate) fn verdict(&self, time: Duration) -> ExitCode {
        println!("\ndemo: {} checks passed, {} failed, in {:.0} s", self.passed, self.failed, time.as_secs_f32());
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
