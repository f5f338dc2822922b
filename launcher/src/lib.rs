//! The VM process, the supervisor and the commands of `tapvisor`.

pub mod services;
