//! The local runner: what kubelet, Multus and a controller are to a pod, for VMs of one machine without a cluster.
//!
//! *Flow.* `tapvisor run` reads and checks everything, makes a [`store`] folder for each VM and starts a supervisor
//! process for it. The supervisor makes the namespace, executes the CNI plugins, starts the launcher without privileges,
//! follows it, applies the run strategy, and removes everything from the host at the end.
//!
//! *Guarantees.* Whatever lies outside a VM's folder is written down there before it is made, so that a later command can
//! remove it when the supervisor was killed.

pub mod child;
pub mod clock;
mod container_images;
pub mod disk_use;
pub mod files;
pub mod host;
pub mod host_files;
pub mod isolation;
pub mod kvm_node;
pub mod launch;
pub mod launcher;
pub mod layout;
pub mod network;
pub mod owner;
pub mod plan;
pub mod process;
pub mod protocol;
pub(crate) mod quota;
pub mod reap;
pub mod record;
mod remove;
pub mod resolv;
pub(crate) mod scratch;
pub mod service_store;
pub mod start;
pub mod store;
pub mod supervise;
pub mod supervisor;
pub mod supervisor_log;
mod sys;

#[cfg(test)]
mod fixtures;

pub use ::protocol::chain::chain;
