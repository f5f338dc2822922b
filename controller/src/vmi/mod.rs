//! VirtualMachineInstances: each becomes a Secret with its launch file and a launcher pod, and its status says what became of them.
//!
//! Flow: object → [`launch::read`] → [`plan::plan`] over the pods that exist → [`reconcile`] executes the plan.
//! Guarantees: a plan is pure; names are deterministic, so a repeated step finds what it made. One instance never has two
//! pods that may run its guest.

mod annotations;
pub(crate) mod claims;
mod images;
mod interfaces;
pub(crate) mod launch;
pub(crate) mod migratable;
pub(crate) mod names;
pub(crate) mod orphans;
pub(crate) mod plan;
pub(crate) mod pod;
pub(crate) mod pod_state;
pub(crate) mod reconcile;
mod resources;
pub(crate) mod sandbox;
mod status;
#[cfg(test)]
mod tests;
mod volumes;

pub(crate) use annotations::wiring;
