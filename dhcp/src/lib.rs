//! DHCPv4, DHCPv6 and router advertisements for the guest of one NIC: whole Ethernet frames in, whole Ethernet frames
//! out. The engines of the boot server are in [`pool`], [`boot`] and [`tftp`].
//!
//! *Flow.* The caller reads a frame from the service tap, hands it to [`Engine::on_frame`] with its clock's time, writes
//! the frames it gets back to the same tap, and calls [`Engine::on_deadline`] when [`Engine::next_deadline`] has come.
//!
//! *Guarantees.* No clock, socket, randomness or global state. Only the configured guest is answered, only at its own
//! Ethernet address, and never more often than a fixed rate. No input panics or makes memory grow.
//!
//! *Assumptions.* The service tap carries what the guest sends to its services and, for a virtual router, the gateway's
//! neighbour advertisements. Checksums of received frames may be unfinished (offload) and are not checked.

pub mod boot;
mod bytes;
#[cfg(test)]
mod captures;
mod config;
mod engine;
mod frame;
mod names;
mod neighbour;
mod observations;
pub mod pool;
#[cfg(test)]
mod properties;
mod rate_limit;
mod router;
#[cfg(test)]
mod tests;
pub mod tftp;
mod v4;
mod v6;

pub use config::{Config, ConfigError, Lifetime, Prefix, Router, V4Config, V6Config};
pub use engine::Engine;
pub use names::DomainName;
pub use observations::{Client, GatewayState, Ignored, Lease, Observations, Phase, V4Observations, V6Observations};

/// A whole Ethernet frame without frame check sequence.
pub type Frame = Vec<u8>;
