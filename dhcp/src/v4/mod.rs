//! DHCPv4 (RFC 2131, RFC 2132) for one client with one address.

mod codes;
mod message;
mod options;
mod parameters;
mod server;
#[cfg(test)]
mod tests;

pub(crate) use server::answer;

/// UDP ports (RFC 2131 §4.1).
pub(crate) const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
