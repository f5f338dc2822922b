//! Rung L1: real kernels' namespaces as root, everything inside worlds that the tests make.

mod dhcp;
mod fixtures;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut trials = Vec::new();
    trials.extend(dhcp::trials());
    trials.extend(fixtures::trials());
    tests::main(trials)
}
