//! Rung L2: cases in the lab's host, which is booted once for all of them.

mod control;
mod host;
mod layer2;
mod manifests;
mod memory;
mod network;
mod vmm;

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use libtest_mimic::Arguments;
use tests::dist_file;
use tests::lab::{Finished, Lab};

/// What `tests/build lab` has built.
const PROGRAMS: [&str; 5] = ["tapvisor", "tapvisor-bridge", "tapvisor-cni", "tapvisor-launcher", "vmm-boot"];

static LAB: Mutex<Option<Lab>> = Mutex::new(None);

/// Runs a script in the lab; the first one boots it.
fn run(case: &str, script: &str, limit: Duration) -> Finished {
    // A case that failed has panicked with this lock held; the host is as good as before.
    let mut lab = LAB.lock().unwrap_or_else(PoisonError::into_inner);
    lab.get_or_insert_with(|| Lab::new(PROGRAMS.map(dist_file).to_vec())).run(case, script, limit)
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // There is one host, and QEMU ends with the thread that started it: cases run in this one.
    arguments.test_threads = Some(1);
    let trials = [
        host::trials(),
        vmm::trials(),
        memory::trials(),
        network::trials(),
        layer2::trials(),
        manifests::trials(),
        control::trials(),
    ];
    let trials = trials.into_iter().flatten().collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(LAB.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit_code()
}
