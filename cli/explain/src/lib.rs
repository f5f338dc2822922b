//! Why a VM's network works or does not: every hop from the host to the guest, and what is wrong with it.
//!
//! *Flow:* [`gather`] looks at the host, the VM's namespace and its launcher, and asks the guest's ports → [`diagnose`], which is
//! pure, makes an [`Explanation`] of that → [`picture`] draws it, [`changes`] tells it apart from the one before.
//! *Guarantees:* nothing is changed. What is sent is one datagram to the discard port of the guest and of the pod's gateways, for
//! the neighbours' entries, and one connection to each port that the VM declares, closed at once; `--passive` sends nothing.

mod case;
mod changes;
mod condition;
mod diagnose;
mod evidence;
mod explanation;
mod fib;
pub mod firewall;
mod gather;
mod launcher;
mod picture;
mod place;
mod reach;
pub mod record;
pub mod refusing;
mod ways;

pub use changes::changes;
pub use diagnose::diagnose;
pub use evidence::{Evidence, Probe};
pub use explanation::Explanation;
pub use gather::{Asking, GatherError, gather};
pub use picture::{Style, picture, size};
