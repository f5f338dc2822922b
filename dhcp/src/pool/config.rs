//! What a server with pools offers, and the check that it contradicts itself nowhere.

use std::net::Ipv4Addr;
use std::time::Duration;

use terms::{Ipv4Network, MacAddr};

use super::record::ClientId;
use crate::boot::BootRule;
use crate::config::{Config, ConfigError, V4Config, refuse, text};

/// Everything a server knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// The Ethernet address of the interface.
    pub mac: MacAddr,
    /// The server's address: its identity, and the source of its packets.
    pub address: Ipv4Addr,
    /// The networks it has addresses for. Clients on the link get those of the one that holds `address`; those behind a relay
    /// agent those of the agent's network.
    pub subnets: Vec<Subnet>,
    /// Boot answers, the first that holds for a client.
    pub boot: Vec<BootRule>,
    /// Seconds for which an address is not given out after another host was found to use it.
    pub decline_seconds: u32,
    /// How long a host that uses an address may take to answer before the address is offered to a client that does not hold it
    /// yet; zero offers unasked. Addresses behind relay agents are always offered unasked.
    pub probe: Duration,
    /// Only boot answers, to clients that another server of the link gives addresses; there are no subnets then.
    pub proxy: bool,
}

/// A network and its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// The network.
    pub network: Ipv4Network,
    /// Addresses for clients without reservation.
    pub pools: Vec<Range>,
    /// Addresses of certain clients; they may be inside and outside of the pools.
    pub reservations: Vec<Reservation>,
    /// What every client of the network is told; address, host name and boot file are each client's.
    pub parameters: Config,
}

/// Addresses from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub first: Ipv4Addr,
    /// The last.
    pub last: Ipv4Addr,
}

impl Range {
    /// Whether it holds the address.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// How many addresses it has.
    #[must_use]
    pub fn count(&self) -> u64 {
        u64::from(u32::from(self.last)).saturating_sub(u32::from(self.first).into()) + 1
    }
}

/// The client of a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhichClient {
    /// By its Ethernet address.
    Mac(MacAddr),
    /// By what it calls itself.
    Id(ClientId),
    /// By where its relay agent says that it is connected (RFC 3046 §3.1).
    Circuit(Vec<u8>),
}

/// An address of one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The client.
    pub client: WhichClient,
    /// Its address.
    pub address: Ipv4Addr,
    /// A host name that it is told, instead of its own.
    pub hostname: Option<String>,
}

/// Most addresses of all pools: what bounds the server's memory.
const MOST_ADDRESSES: u64 = 1 << 20;

impl ServerConfig {
    /// # Errors
    /// When a value cannot be sent or contradicts another; the message names the field and its value.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let addresses: u64 = self.subnets.iter().flat_map(|subnet| &subnet.pools).map(Range::count).sum();
        if addresses > MOST_ADDRESSES {
            return refuse("subnets", format!("the pools have {addresses} addresses, at most {MOST_ADDRESSES}"));
        }
        for (index, subnet) in self.subnets.iter().enumerate() {
            let overlaps = |other: &&Subnet| {
                other.network.contains(subnet.network.network()) || subnet.network.contains(other.network.network())
            };
            if let Some(other) = self.subnets.iter().skip(index + 1).find(overlaps) {
                return refuse("subnets.network", format!("{} overlaps with {}", subnet.network, other.network));
            }
            subnet.check()?;
            subnet.check_server(self.address)?;
        }
        self.boot.iter().try_for_each(|rule| {
            text("boot.file", Some(&rule.file))?;
            text("boot.server", rule.server.as_deref())
        })
    }
}

impl Subnet {
    /// Checks what does not depend on the server.
    ///
    /// # Errors
    /// When a value cannot be sent or contradicts another; the message names the field and its value.
    pub fn check(&self) -> Result<(), ConfigError> {
        let is_host = |address: Ipv4Addr| {
            let ends = [self.network.network(), self.network.broadcast()];
            self.network.contains(address) && (self.network.prefix() > 30 || !ends.contains(&address))
        };
        for (index, range) in self.pools.iter().enumerate() {
            let shown = format!("{}-{}", range.first, range.last);
            if range.first > range.last || !is_host(range.first) || !is_host(range.last) {
                return refuse("pools", format!("{shown} is no range of host addresses of {}", self.network));
            }
            if let Some(router) = self.v4().router.filter(|router| range.contains(*router)) {
                return refuse("pools", format!("{shown} holds the router, {router}"));
            }
            let shares = |other: &&Range| other.contains(range.first) || range.contains(other.first);
            if self.pools.iter().skip(index + 1).any(|other| shares(&other)) {
                return refuse("pools", format!("{shown} shares addresses with another pool"));
            }
        }
        for (index, reservation) in self.reservations.iter().enumerate() {
            let address = reservation.address;
            if !is_host(address) {
                return refuse("reservations.address", format!("{address} is no client's address of {}", self.network));
            }
            let others = || self.reservations.iter().skip(index + 1);
            if others().any(|other| other.address == address) {
                return refuse("reservations.address", format!("{address} is reserved twice"));
            }
            if others().any(|other| other.client == reservation.client) {
                return refuse("reservations", format!("the client of {address} has two reservations"));
            }
            text("reservations.hostname", reservation.hostname.as_deref())?;
        }
        self.parameters.check_without_guest()
    }

    fn check_server(&self, server: Ipv4Addr) -> Result<(), ConfigError> {
        let reserved = |reservation: &Reservation| reservation.address == server;
        if self.is_in_pool(server) || self.reservations.iter().any(reserved) {
            return refuse("subnets", format!("{server} is the server's own address, not for clients"));
        }
        Ok(())
    }

    /// Whether clients without reservation may have the address.
    pub(crate) fn is_in_pool(&self, address: Ipv4Addr) -> bool {
        self.pools.iter().any(|range| range.contains(address))
    }

    /// The parameters' part for IPv4.
    pub(crate) fn v4(&self) -> V4Config {
        self.parameters.v4.clone().unwrap_or_default()
    }
}
