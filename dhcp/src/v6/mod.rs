//! DHCPv6 (RFC 8415, RFC 9915) for one client with one address.

mod associations;
mod codes;
mod message;
mod parameters;
mod server;
#[cfg(test)]
mod tests;

pub(crate) use server::answer;

/// UDP ports (RFC 8415 §7.2).
pub(crate) const SERVER_PORT: u16 = 547;
const CLIENT_PORT: u16 = 546;
