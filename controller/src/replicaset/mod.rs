//! VirtualMachineInstanceReplicaSets: as many instances of a template as the set says.
//!
//! Flow: object and the instances that it selects → [`plan::plan`] → [`reconcile`] writes the status, then executes the plan.
//! Guarantees: a plan is pure; names of instances are deterministic, so a repeated step finds what it made.

pub(crate) mod object;
mod plan;
pub(crate) mod reading;
pub(crate) mod reconcile;
mod selector;
#[cfg(test)]
mod tests;

pub(crate) use object::ReplicaSet;
