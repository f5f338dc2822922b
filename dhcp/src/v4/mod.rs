//! DHCPv4 (RFC 2131, RFC 2132): messages and parameters, and the server for one client with one address.

mod answers;
pub(crate) mod codes;
mod message;
mod options;
mod parameters;
mod request;
mod server;
#[cfg(test)]
mod tests;

pub(crate) use answers::Answers;
pub(crate) use message::{BROADCAST_FLAG, Message, Reply};
pub(crate) use request::requested;
pub(crate) use server::answer;

/// UDP ports (RFC 2131 §4.1).
pub(crate) const SERVER_PORT: u16 = 67;
pub(crate) const CLIENT_PORT: u16 = 68;
/// Where boot servers are asked (PXE specification 2.1 §2.2.3).
pub(crate) const BOOT_PORT: u16 = 4011;
