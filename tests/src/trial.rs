//! The harness of the rungs above L0: tests that need root say why they did not run instead of passing.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Trial};

/// Why a test cannot run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip(pub String);

/// A test whose name is a sentence. It fails by panicking.
#[must_use]
pub fn trial(name: &str, run: fn()) -> Trial {
    needs(name, || Ok(()), run)
}

/// A test that runs only if `condition` holds, and is reported with the reason otherwise.
#[must_use]
pub fn needs(name: &str, condition: fn() -> Result<(), Skip>, run: fn()) -> Trial {
    Trial::ignorable_test(name, move || match root().and_then(|()| condition()) {
        Ok(()) => {
            run();
            Ok(Completion::Completed)
        }
        Err(Skip(reason)) => Ok(Completion::ignored_with(reason)),
    })
}

/// Runs the tests of a rung, two at a time unless the command line says otherwise: emulated guests slow each other down.
#[must_use]
pub fn main(trials: Vec<Trial>) -> ExitCode {
    main_of(2, trials)
}

/// Runs the tests of a rung, `threads` at a time unless the command line says otherwise.
#[must_use]
pub fn main_of(threads: usize, trials: Vec<Trial>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(threads);
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn root() -> Result<(), Skip> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(Skip("needs root to make namespaces".to_owned())) }
}
