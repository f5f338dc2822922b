//! A server with pools: which message is answered, and for which network.

use std::net::Ipv4Addr;
use std::time::Duration;

use terms::MacAddr;

use super::arp::{self, Claim};
use super::config::{Range, ServerConfig};
use super::exchange::{Arrival, Exchange, parameters};
use super::leases::Leases;
use super::output::{Counters, EventKind, Output};
use super::probes::{Due, Probes};
use super::proxy;
use super::record::{ClientId, Record};
use super::relay;
use crate::config::ConfigError;
use crate::frame::{self, Content};
use crate::rate_limit::RateLimit;
use crate::v4::{self, Message, codes};

/// Rate limits; clients whose addresses fall together share one.
const RATE_LIMITS: usize = 4096;

/// A DHCPv4 server with pools.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    leases: Vec<Leases>,
    limits: Vec<RateLimit>,
    probes: Probes,
    counters: Counters,
}

impl Server {
    /// Checks the configuration and starts without leases.
    ///
    /// # Errors
    /// When a value cannot be sent or contradicts another.
    pub fn new(config: ServerConfig) -> Result<Self, ConfigError> {
        config.check()?;
        let leases = config.subnets.iter().cloned().map(Leases::new).collect();
        let limits = vec![RateLimit::default(); RATE_LIMITS];
        let probes = Probes::new(config.probe);
        Ok(Self { config, leases, limits, probes, counters: Counters::default() })
    }

    /// The Ethernet address of the interface has changed.
    pub fn set_mac(&mut self, mac: MacAddr) {
        self.config.mac = mac;
    }

    /// Takes back recorded leases; returns those of no network of the configuration, which the caller keeps. A lease ends at the
    /// latest when it was granted for so long from now: a clock that was set back makes none eternal.
    pub fn restore(&mut self, now: Duration, records: impl IntoIterator<Item = Record>) -> Vec<Record> {
        self.adopt(records, Some(now))
    }

    /// Serves by another configuration from now on, with all leases and what was counted; offers are forgotten. `others` are records of no
    /// network of the configuration so far; returns those of no network of the new one.
    ///
    /// # Errors
    /// When a value cannot be sent or contradicts another; nothing is changed then.
    pub fn reload(&mut self, config: ServerConfig, others: &[Record]) -> Result<Vec<Record>, ConfigError> {
        let mut next = Self::new(config)?;
        // The clock has not been set meanwhile, so that each lease ends when its client was told.
        let others = next.adopt([&self.records(), others].concat(), None);
        next.limits = std::mem::take(&mut self.limits);
        next.counters = self.counters;
        *self = next;
        Ok(others)
    }

    fn adopt(&mut self, records: impl IntoIterator<Item = Record>, now: Option<Duration>) -> Vec<Record> {
        let mut others = Vec::new();
        for mut record in records {
            let Some(index) = self.subnet_of(record.address) else {
                others.push(record);
                continue;
            };
            if let Some(leases) = self.leases.get_mut(index) {
                let longest = leases.subnet().v4().lease.wire().max(self.config.decline_seconds);
                let granted = record.granted.unwrap_or(Duration::from_secs(longest.into()));
                let latest = now.map_or(Duration::MAX, |now| now.saturating_add(granted));
                record.until = record.until.min(latest);
                leases.restore(record);
            }
        }
        others
    }

    /// All that is to be known of the leases: what replaces the records so far.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.leases.iter().flat_map(Leases::records).collect()
    }

    /// How many records there are at most.
    #[must_use]
    pub fn count(&self) -> usize {
        self.leases.iter().map(Leases::count).sum()
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Each network with the number of its pools' addresses, and of those leased at `now`.
    pub fn networks(&self, now: Duration) -> impl Iterator<Item = (terms::Ipv4Network, u64, usize)> {
        self.leases.iter().map(move |leases| {
            let pools = leases.subnet().pools.iter().map(Range::count).sum();
            (leases.subnet().network, pools, leases.leased(now))
        })
    }

    /// Takes one frame from the interface: a DHCP message, or an ARP packet of a host.
    #[must_use]
    pub fn on_frame(&mut self, now: Duration, frame: &[u8]) -> Output {
        if arp::is_arp(frame) {
            return arp::claim(frame).map_or_else(Output::default, |claim| self.on_claim(now, claim));
        }
        let Some(arrival) = self.read(frame, None) else { return Output::default() };
        if !self.spend(now, arrival.message.chaddr) {
            self.counters.over_limit += 1;
            return Output::default();
        }
        self.counters.received += 1;
        self.on_message(now, &arrival)
    }

    /// When [`Server::on_deadline`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.probes.next_due()
    }

    /// Offers the addresses that no host answered for, and looks again for others.
    #[must_use]
    pub fn on_deadline(&mut self, now: Duration) -> Output {
        let mut output = Output::default();
        while let Some(due) = self.probes.due(now) {
            output = output.and(match due {
                Due::Again(address) => {
                    Output { frames: vec![arp::probe(self.config.mac, address)], ..Output::default() }
                }
                Due::Unused(address, discover) => match self.read(&discover, Some(address)) {
                    Some(arrival) => self.on_message(now, &arrival),
                    None => Output::default(),
                },
            });
        }
        output
    }

    /// Sets an address aside that another host uses, and looks for another for the client.
    fn on_claim(&mut self, now: Duration, claim: Claim) -> Output {
        let Some(discover) = self.probes.claimed(claim) else { return Output::default() };
        let Some(arrival) = self.read(&discover, None) else { return Output::default() };
        let conflict = self.exchange(now, &arrival, |exchange| exchange.conflict(claim.address, claim.mac));
        conflict.and(self.on_message(now, &arrival))
    }

    /// The message in a frame, if it is for this server.
    fn read<'a>(&mut self, frame: &'a [u8], unused: Option<Ipv4Addr>) -> Option<Arrival<'a>> {
        let Some(received) = frame::parse(frame) else {
            self.counters.malformed += 1;
            return None;
        };
        let Content::Udp4(datagram) = received.content else { return None };
        let is_for_us = datagram.destination.is_broadcast() || datagram.destination == self.config.address;
        let port = datagram.destination_port;
        let is_ours = port == v4::SERVER_PORT || self.config.proxy && port == v4::BOOT_PORT;
        if !is_ours || !is_for_us {
            return None;
        }
        let message = Message::parse(datagram.payload).and_then(|message| {
            let client = match message.options.bytes(codes::CLIENT_ID) {
                Some(id) => ClientId::of_option(id)?,
                None => ClientId::of_ethernet(message.chaddr),
            };
            Some((message, client))
        });
        let Some((message, client)) = message else {
            self.counters.malformed += 1;
            return None;
        };
        let (source, from) = (received.source, (datagram.source, datagram.source_port));
        let was_unicast = !datagram.destination.is_broadcast();
        Some(Arrival { frame, source, from, port, was_unicast, message, client, unused })
    }

    /// FNV-1a over the address chooses the limit.
    fn spend(&mut self, now: Duration, mac: [u8; 6]) -> bool {
        let hash = mac
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        let index = usize::try_from(hash % RATE_LIMITS as u64).unwrap_or_default();
        self.limits.get_mut(index).is_some_and(|limit| limit.spend(now))
    }

    fn subnet_of(&self, address: Ipv4Addr) -> Option<usize> {
        self.leases.iter().position(|leases| leases.subnet().network.contains(address))
    }

    fn on_message(&mut self, now: Duration, arrival: &Arrival<'_>) -> Output {
        if self.config.proxy {
            return proxy::answer(&self.config, &mut self.counters, arrival);
        }
        self.exchange(now, arrival, |exchange| exchange.answer())
    }

    fn exchange(
        &mut self,
        now: Duration,
        arrival: &Arrival<'_>,
        answer: impl FnOnce(&mut Exchange<'_>) -> Output,
    ) -> Output {
        let Some(index) = self.subnet_of(self.link_of(arrival)) else {
            return Output::of(arrival.event(EventKind::UnknownNetwork, None));
        };
        let Self { config, leases, probes, counters, .. } = self;
        let Some(leases) = leases.get_mut(index) else { return Output::default() };
        let parameters = parameters(config, leases, arrival);
        answer(&mut Exchange { now, config, leases, probes, counters, arrival, parameters })
    }

    /// An address of the link that the client is on: what its relay agent says, else its own where it is routed to us, else ours.
    fn link_of(&self, arrival: &Arrival<'_>) -> Ipv4Addr {
        let message = &arrival.message;
        if !message.giaddr.is_unspecified() {
            let option = message.options.bytes(codes::RELAY_AGENT).unwrap_or_default();
            return relay::link(option).unwrap_or(message.giaddr);
        }
        if arrival.was_unicast && !message.ciaddr.is_unspecified() { message.ciaddr } else { self.config.address }
    }
}
