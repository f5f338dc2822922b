//! The VM process: `tapvisor launch`.
//!
//! Flow: read the machine file → read the namespace back and verify its wiring → attach taps, open disks → choose an
//! engine → serve DHCP, console and control socket while the machine runs → leave `outcome.json`.
//! Guarantees: nothing of the host is changed; the engine never outlives the process; a machine never starts without
//! its network. Assumptions: the process is the taps' owner, in the VM's network namespace, without capabilities.

mod args;
mod ask;
mod choice;
mod console;
mod control;
mod emulation;
pub mod engine;
mod launch;
mod lifecycle;
mod network;
mod outcome;
mod run;

pub use args::LaunchArgs;
pub(crate) use ask::ask;
pub use control::Verb;
pub use emulation::heard;
pub use launch::launch;
pub use lifecycle::State;
pub use outcome::{OUTCOME_FILE, Outcome, Verdict};

/// A small machine for tests: one masquerade NIC, no disk, a kernel.
#[cfg(test)]
pub(crate) fn machine_for_tests() -> api::machine::Machine {
    let text = r#"{"namespace": "default", "name": "web", "uuid": "5d1f1c2e-1e0b-4b7c-9d1a-0c5b6a7d8e9f",
        "hostname": "web", "cpu": {"sockets": 1, "cores": 2, "threads": 1}, "memoryBytes": 268435456,
        "boot": {"kernel": {"kernel": "/boot/vmlinuz", "initrd": "/boot/initrd", "commandLine": "console=ttyS0 a,b"}},
        "disks": [], "nics": [{"name": "default", "podInterface": "eth0", "binding": "masquerade", "model": "virtio",
        "mac": "02:11:22:33:44:55"}], "serialConsole": true, "rng": true, "gracePeriodSeconds": 30,
        "emulation": "allowed"}"#;
    serde_json::from_str(text).unwrap()
}
