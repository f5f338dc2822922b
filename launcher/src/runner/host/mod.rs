//! The host's own network: what it was before the first VM, what the plugins need of it, and putting it back.
//!
//! The reference plugins switch forwarding on and never off, and leave bridges and empty nat tables behind. *Flow:* with
//! the first VM, under the host lock, [`Before`] is written to a file, then [`prepare`] is applied; with the last one
//! [`restore`] is applied until it is empty, and the file removed.

mod before;
mod guard;
mod overlap;

pub use before::{Before, prepare, questions, restore};
pub use guard::{HostError, HostGuard};
pub use overlap::{Overlap, overlap};
