//! All that a launcher and its starter agree on: its launch file, its options, the descriptors it is handed, its
//! control socket, what the guest's agent says, how it ends, and what its probe of /dev/kvm says.

pub mod agent;
pub mod chain;
pub mod client;
pub mod control;
pub mod counters;
pub mod launch_file;
pub mod options;
pub mod outcome;
pub mod probe;
pub mod rate_limit;
pub mod socket;

mod status;
mod sys;

pub use sys::descriptors;
