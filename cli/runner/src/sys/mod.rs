//! What no safe crate offers: the moment between fork and exec.

pub(crate) mod confined;
pub(crate) mod mounts;
pub(crate) mod spawn;
