//! The host's own network: what it was before the first VM, what the plugins need of it, and putting it back.
//!
//! The reference plugins switch forwarding on and never off, and leave bridges and empty nat tables behind. *Flow:* with
//! the first VM, under the host lock, [`Before`] is written to a file, then [`prepare`] is applied; around each attachment
//! the settings are looked at, and what changed is noted as [`Ours`]; with the last VM [`restore`] is applied until it is
//! empty, and the file removed. A setting that we switched on and somebody else then wanted on as well looks like ours.

mod before;
mod guard;
mod overlap;

pub use before::{Before, Ours, Settings, prepare, questions, restore, settings};
pub use guard::{HostError, HostGuard};
pub use overlap::{Overlap, overlap};
