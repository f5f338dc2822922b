//! VirtualMachineInstanceMigrations: each gets a target pod whose launcher waits for the guest, and says what became of it.
//!
//! Flow: object, its instance and its target pod → [`plan::plan`] → [`reconcile`] writes the status, then executes the plan.
//! Guarantees: a plan is pure; the target pod's name is deterministic. Until the guest is moved, the pod that runs it and its
//! instance stay as they are.

pub(crate) mod admission;
pub(crate) mod object;
mod plan;
pub(crate) mod reconcile;
mod target;
#[cfg(test)]
mod tests;
