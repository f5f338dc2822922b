//! The CNI plugin on the node: its file, its place in the runtime's configuration, and its garbage collection.

mod chain;
mod conflist;
mod gc;
mod install;

pub(crate) use chain::{Chain, ChainError, Mode};
pub(crate) use gc::collect;
pub(crate) use install::{install, remove};
