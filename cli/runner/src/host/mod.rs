//! The host's own network: records it before the first VM, prepares it for plugins, restores it after the last VM.
//!
//! The reference plugins switch forwarding on and never off, and leave bridges and empty nat tables behind. *Flow:* with
//! the first VM, under the host lock, [`Baseline`] is written to a file, then [`prepare`] is applied; around each attachment
//! the settings are read, and changes are recorded as [`OurChanges`]; with the last VM [`restore`] is applied until it is empty,
//! and the file is removed. *Assumption:* a setting that we switched on, and that another program needs later, counts as ours.

mod baseline;
mod guard;
mod overlap;

pub use baseline::{Baseline, OurChanges, Settings, prepare, questions, restore, settings};
pub use guard::{HostError, HostGuard};
pub use overlap::{Overlap, overlap};
