//! Rung L1: real kernels' namespaces as root, everything inside worlds that the tests make.

mod binding;
mod boot;
mod commands;
mod confinement;
mod dhcp;
mod doctor;
mod fixtures;
mod hostnet;
mod layer2;
mod runtime;
mod services;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut trials = Vec::new();
    trials.extend(binding::trials());
    trials.extend(boot::trials());
    trials.extend(commands::trials());
    trials.extend(confinement::trials());
    trials.extend(dhcp::trials());
    trials.extend(doctor::trials());
    trials.extend(fixtures::trials());
    trials.extend(hostnet::trials());
    trials.extend(layer2::trials());
    trials.extend(runtime::trials());
    trials.extend(services::trials());
    tests::main(trials)
}
