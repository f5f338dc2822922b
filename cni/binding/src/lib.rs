//! The binding plugin `tapvisor`: turns interfaces of a pod into taps for a VM.
//!
//! Flow: configuration and annotation → request; namespace → facts; both → `Desired`, what there must be; that and
//! the facts → plan → apply. DEL plans from what it finds, CHECK compares what there must be with what is.
//! Guarantees: a pod without a request costs no netlink socket, but for DEL, which looks whether anything is left; nothing is
//! touched before all of a request is known to be possible; what is changed is written on a tap before it is changed, and the
//! mark that lets a launcher start comes last.
//! Assumptions: one request per namespace, and no other program uses tables named `tapvisor` in it.

mod addresses;
mod bridge;
mod check;
mod conf;
mod del;
mod desired;
mod drift;
mod error;
mod existing;
#[cfg(test)]
mod golden;
mod inspect;
mod mark;
mod masquerade;
pub mod names;
mod plan;
mod plugin;
mod pod;
mod refusal;
mod reply;
mod rules;
mod status;
mod taps;
mod verbs;

pub use conf::requested;
pub use drift::{Drift, Ids, LinkDrift, MarkDrift};
pub use error::BindingError;
pub use inspect::{drift, plan, read};
pub use plugin::Tapvisor;
pub use refusal::Refusal;
