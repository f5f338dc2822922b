//! Rung L2: cases in the lab's host, which is booted once for all of them.

mod host;

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use tests::dist_file;
use tests::lab::{Finished, Lab};

static LAB: Mutex<Option<Lab>> = Mutex::new(None);

/// Runs a script in the lab; the first one boots it.
fn run(case: &str, script: &str, limit: Duration) -> Finished {
    // A case that failed has panicked with this lock held; the host is as good as before.
    let mut lab = LAB.lock().unwrap_or_else(PoisonError::into_inner);
    lab.get_or_insert_with(|| Lab::new(vec![dist_file("tapvisor-launcher")])).run(case, script, limit)
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // There is one host, and QEMU ends with the thread that started it: cases run in this one.
    arguments.test_threads = Some(1);
    let trials: Vec<Trial> = host::trials();
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(LAB.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit_code()
}
