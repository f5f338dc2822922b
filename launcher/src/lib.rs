//! The VM process: `tapvisor-launcher`.
//!
//! Flow: read the machine file → read the namespace back and verify its wiring → attach taps, open disks → choose an
//! engine → serve DHCP, console and control socket while the machine runs → leave `outcome.json`.
//! Guarantees: nothing of the host is changed; the engine never outlives the process; a machine never starts without
//! its network. Assumptions: the process is the taps' owner, in the VM's network namespace, without capabilities.

mod agent;
mod choice;
pub mod confine;
mod console;
mod control;
mod counters;
pub mod ctl;
mod emulation;
pub mod engine;
#[cfg(test)]
mod few_descriptors;
#[cfg(test)]
mod fixtures;
mod guest_log;
mod huge_pages;
mod incoming;
mod kvm;
mod launch;
mod lifecycle;
mod network;
mod orphans;
mod run;
mod screen;
mod sys;
mod threads;

pub use agent::agent_heard;
pub use emulation::heard;
pub use launch::launch;
pub use sys::kvm_probe::probe;
