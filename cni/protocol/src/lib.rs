//! The CNI protocol on both sides of the pipe.
//!
//! - [`spec`]: versions, results and errors as the CNI specification writes them.
//! - [`plugin`]: what a plugin sees of a call, and how one is served.
//! - [`runtime`]: executing lists of plugins, as libcni does.

pub mod plugin;
pub mod runtime;
pub mod spec;
