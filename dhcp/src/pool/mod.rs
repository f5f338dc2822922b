//! DHCPv4 with pools of addresses, for any number of clients: frames in; frames, records of leases and events out.
//!
//! *Flow.* The caller hands each frame and its clock's time to [`Server::on_frame`], makes the records of the answer durable, and
//! then sends the frames; so it does with [`Server::on_deadline`] when [`Server::next_deadline`] has come. At start it hands back
//! all that was recorded to [`Server::restore`].
//!
//! *Guarantees.* No clock, socket or randomness. An address belongs to one client until its lease ends; a record precedes every
//! acknowledgement. Memory is bounded by the sizes of the pools, whatever clients send.
//!
//! *Assumptions.* `now` is the time since the epoch and does not run backwards while the server lives.

mod arp;
mod config;
#[cfg(test)]
mod conflicts;
mod exchange;
mod leases;
mod output;
mod probes;
#[cfg(test)]
mod properties;
mod proxy;
mod record;
mod relay;
mod server;
#[cfg(test)]
mod tests;

pub use config::{Range, Reservation, ServerConfig, Subnet, WhichClient};
pub use output::{Counters, Event, EventKind, Output};
pub use record::{ClientId, LeaseState, Record};
pub use server::Server;
