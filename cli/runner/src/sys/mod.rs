//! What no safe crate offers: the moment between fork and exec.

pub(crate) mod spawn;
