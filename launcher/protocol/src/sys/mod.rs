//! What no safe crate offers: descriptors by number.

pub mod descriptors;
