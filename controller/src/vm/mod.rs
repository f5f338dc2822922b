//! VirtualMachines: each becomes a VirtualMachineInstance when its run strategy or a user's request says so.
//!
//! Flow: [`instancetype`] expands the template; object, its instance and its revisions → [`plan::plan`] → [`reconcile`] writes the status, then executes the plan.
//! Guarantees: a plan is pure; the spec is never written but for a start on request of a machine that is halted, as KubeVirt
//! does. An instance keeps a finalizer until its end is recorded in the machine's status.

mod abandoned;
mod instance;
pub(crate) mod instancetype;
mod links;
mod mirror;
pub(crate) mod object;
mod plan;
mod printable;
pub(crate) mod reading;
pub(crate) mod reconcile;
mod requests;
mod revision;
mod start_failure;
#[cfg(test)]
mod tests;

pub(crate) use object::VirtualMachine;
