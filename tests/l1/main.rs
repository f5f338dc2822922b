//! Rung L1: real kernels' namespaces as root, everything inside worlds that the tests make.

mod fixtures;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut trials = Vec::new();
    trials.extend(fixtures::trials());
    tests::main(trials)
}
