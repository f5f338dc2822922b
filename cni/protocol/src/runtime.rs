//! The runtime's side: executes anybody's plugins by the protocol, as libcni does, blocking and without a daemon.
//!
//! Flow: configuration list + attachment → one process per plugin, forward (DEL in reverse) → result, kept in a cache file
//! that libcni could read.
//! Guarantees: a failed ADD is rolled back; what was begun is on file before the first plugin runs, so the caller after a
//! killed runtime finds what to DEL; tear-down goes on past failures and reports them all.
//! Assumptions: the caller runs one operation on a container at a time, and GC alone (specification section 3).

mod attachment;
mod cache;
mod config_error;
mod conversation;
mod delegate;
mod document;
mod drop_in;
mod exec;
mod list;
mod verbs;

pub use attachment::Attachment;
pub use cache::{CacheError, Cached};
pub use config_error::ConfigError;
pub use delegate::delegate;
pub use exec::ExecError;
pub use list::ConfigList;
pub use verbs::{Runtime, RuntimeError};
