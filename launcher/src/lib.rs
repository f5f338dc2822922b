//! The VM process, the supervisor and the commands of `tapvisor`.

mod chain;
pub mod cli;
pub mod cloud_init;
pub mod disk;
mod explain;
pub mod image;
pub mod runner;
pub mod services;
mod socket;
mod sys;
pub mod vm;
