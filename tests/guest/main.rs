//! Rung guest: manifests through the real `tapvisor`, real kernels in the machines, on networks of a world.

mod agent;
mod by_hand;
mod devices;
mod examples;
mod explain;
mod host_routes;
mod interrupts;
mod isolation;
mod killed;
mod launch;
mod manifest;
mod netboot;
mod networks;
mod nics;
mod probes;
mod refusals;
mod spoofing;
mod vm;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut trials = Vec::new();
    trials.extend(examples::trials());
    trials.extend(explain::trials());
    trials.extend(netboot::trials());
    trials.extend(networks::trials());
    trials.extend(nics::trials());
    trials.extend(by_hand::trials());
    trials.extend(probes::trials());
    trials.extend(agent::trials());
    trials.extend(host_routes::trials());
    trials.extend(devices::trials());
    trials.extend(killed::trials());
    trials.extend(refusals::trials());
    trials.extend(interrupts::trials());
    trials.extend(isolation::trials());
    trials.extend(launch::trials());
    trials.extend(spoofing::trials());
    tests::main(trials)
}
