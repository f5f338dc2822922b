//! Fixtures of the test ladder: a host of one's own, namespaces in it, guests, and before/after comparison.
//!
//! Everything here panics with a full account when the fixture itself breaks: a test that cannot be set up has failed.

#[path = "../conformance/mod.rs"]
pub mod conformance;

mod boot_server;
pub mod cluster;
mod command;
mod counts;
mod dhcp_service;
mod dist;
mod fake_guest;
mod guest;
mod inside;
pub mod lab;
mod ns;
mod outside;
mod program;
mod settle;
mod snapshot;
mod stream;
mod tap;
mod terminal;
mod tftp;
mod trial;
mod world;

pub use boot_server::BootServer;
pub use cluster::Cluster;
pub use command::{Ran, wait_for, wait_for_or};
pub use counts::{Counts, count, instructions, seized};
pub use dhcp_service::DhcpService;
pub use dist::{cache_file, dist_file, workspace};
pub use fake_guest::FakeGuest;
pub use guest::{CommandOutput, Guest, KERNEL_ARGUMENTS, Lease};
pub use inside::inside;
pub use ns::Ns;
pub use outside::Outside;
pub use program::{Program, Took};
pub use snapshot::Snapshot;
pub use stream::exchange;
pub use tap::Tap;
pub use terminal::Terminal;
pub use tftp::serve_tftp;
pub use trial::{Skip, main, main_of, needs, trial};
pub use world::World;
