//! The network plugin `tapvisor-bridge`: joins pods to a bridge of the host, with the configuration of the reference plugin.
//!
//! Flow: configuration → addresses (IPAM) → `Desired`, what there must be; that and the facts of both namespaces → plan →
//! apply. CHECK compares `Desired` with the facts; DEL and GC go by the record and need neither the previous result nor the
//! namespace.
//! Guarantees: what is outside the pod's namespace is recorded before the first change; an ADD that fails leaves nothing of the
//! attachment, its addresses included, but what its network shares (the bridge, the gateway, the tables), and takes nothing
//! from another attachment; an uplink is put back with the last attachment; the cost of a call does not grow with the number of pods, but for DEL of masqueraded ones.
//! Assumptions: the runtime runs one operation on a container at a time; no other program uses tables named
//! `tapvisor-bridge` on the host.

mod check;
mod conf;
mod del;
mod desired;
mod error;
mod existing;
mod inspect;
mod ipam;
mod names;
mod plan;
mod plugin;
mod record;
mod reply;
mod rules;
#[cfg(test)]
mod tests;
mod uplink;
mod verbs;

pub use del::remove_unused;
pub use inspect::{Attached, attachments};
pub use plugin::Bridge;
pub use rules::table_ids;
