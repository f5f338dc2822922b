//! What each message of a client deserves from a server with pools (RFC 2131 §4.3).

use std::net::Ipv4Addr;
use std::time::Duration;

use super::config::{ServerConfig, WhichClient};
use super::leases::{Asker, Leases};
use super::record::{ClientId, LeaseState, Record};
use super::relay;
use crate::Frame;
use crate::boot::{self, BootClient};
use crate::config::{Config, ConfigError, V4Config};
use crate::frame::{self, Content, Datagram, Link};
use crate::observations::Phase;
use crate::rate_limit::RateLimit;
use crate::v4::{self, Answers, BROADCAST_FLAG, Message, Reply, codes};

/// How long an offer is kept for its client.
const OFFER: Duration = Duration::from_secs(60);
/// Rate limits; clients whose addresses fall together share one.
const RATE_LIMITS: usize = 4096;
/// Most characters that are kept of a client's host name.
const HOSTNAME_CHARACTERS: usize = 63;

/// What an answer demands of the caller: first make the records durable, then send the frames.
#[derive(Debug, Default)]
pub struct Output {
    /// To be recorded before any frame is sent.
    pub records: Vec<Record>,
    /// To be sent on the interface.
    pub frames: Vec<Frame>,
    /// For the log.
    pub event: Option<Event>,
}

/// Something that a log should tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// Which address.
    pub address: Option<Ipv4Addr>,
    /// Which client.
    pub client: ClientId,
    /// The client's Ethernet address.
    pub mac: [u8; 6],
    /// The client's name for itself; may be empty.
    pub hostname: String,
    /// The relay agent that the message came by.
    pub relay: Option<Ipv4Addr>,
    /// The boot file of the answer.
    pub boot_file: Option<String>,
}

/// What happened to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// An address was offered.
    Offer,
    /// An address was leased.
    Ack(Phase),
    /// A request for an address that is not the client's was refused.
    Nak,
    /// Parameters were told without an address.
    Inform,
    /// A lease was given back.
    Release,
    /// The client reports that another host uses the address.
    Decline,
    /// No address was left.
    Exhausted,
    /// The relay agent's network is none of the configuration.
    UnknownNetwork,
}

/// Messages counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Received from clients.
    pub received: u64,
    /// Offers sent.
    pub offers: u64,
    /// Acknowledgements sent.
    pub acks: u64,
    /// Refusals sent.
    pub naks: u64,
    /// Leases given back.
    pub releases: u64,
    /// Addresses reported as used by others.
    pub declines: u64,
    /// Clients for which no address was left.
    pub exhausted: u64,
    /// Frames that are no DHCP message.
    pub malformed: u64,
    /// Messages not answered because of the rate limit.
    pub over_limit: u64,
}

/// A DHCPv4 server with pools.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    leases: Vec<Leases>,
    limits: Vec<RateLimit>,
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
        Ok(Self { config, leases, limits, counters: Counters::default() })
    }

    /// Takes back recorded leases; returns those of no network of the configuration, which the caller keeps. A lease ends at the
    /// latest at one whole lease time from now: a clock that was set back makes none eternal.
    pub fn restore(&mut self, now: Duration, records: impl IntoIterator<Item = Record>) -> Vec<Record> {
        let mut others = Vec::new();
        for mut record in records {
            let Some(index) = self.subnet_of(record.address) else {
                others.push(record);
                continue;
            };
            if let Some(leases) = self.leases.get_mut(index) {
                let longest = u64::from(leases.subnet().v4().lease.wire().max(self.config.decline_seconds));
                record.until = record.until.min(now + Duration::from_secs(longest));
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

    /// Addresses leased at `now`, for each network.
    #[must_use]
    pub fn leased(&self, now: Duration) -> Vec<(terms::Ipv4Network, usize)> {
        self.leases.iter().map(|leases| (leases.subnet().network, leases.leased(now))).collect()
    }

    /// Takes one frame from the interface.
    #[must_use]
    pub fn on_frame(&mut self, now: Duration, frame: &[u8]) -> Output {
        let Some(received) = frame::parse(frame) else {
            self.counters.malformed += 1;
            return Output::default();
        };
        let Content::Udp4(datagram) = received.content else { return Output::default() };
        let is_for_us = datagram.destination.is_broadcast() || datagram.destination == self.config.address;
        if datagram.destination_port != v4::SERVER_PORT || !is_for_us {
            return Output::default();
        }
        let Some(message) = Message::parse(datagram.payload) else {
            self.counters.malformed += 1;
            return Output::default();
        };
        if !self.spend(now, message.chaddr) {
            self.counters.over_limit += 1;
            return Output::default();
        }
        self.counters.received += 1;
        self.on_message(now, received.source, &datagram, &message)
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

    fn on_message(
        &mut self,
        now: Duration,
        source: [u8; 6],
        datagram: &Datagram<'_, Ipv4Addr>,
        message: &Message,
    ) -> Output {
        let client = match message.options.bytes(codes::CLIENT_ID) {
            Some(id) => ClientId::of_option(id),
            None => Some(ClientId::of_ethernet(message.chaddr)),
        };
        let Some(client) = client else {
            self.counters.malformed += 1;
            return Output::default();
        };
        let was_unicast = !datagram.destination.is_broadcast();
        let Some(index) = self.subnet_of(self.link_of(message, was_unicast)) else {
            let event = event(EventKind::UnknownNetwork, message, client, None);
            return Output { event: Some(event), ..Output::default() };
        };
        let Self { config, leases, counters, .. } = self;
        let Some(leases) = leases.get_mut(index) else { return Output::default() };
        let parameters = parameters(config, leases, message, &client);
        let mut exchange = Exchange { now, config, leases, counters, source, was_unicast, message, client, parameters };
        match message.options.array(codes::MESSAGE_TYPE) {
            Some([codes::DISCOVER]) => exchange.discover(),
            Some([codes::REQUEST]) => exchange.request(),
            Some([codes::INFORM]) => exchange.inform(),
            Some([codes::RELEASE]) => exchange.release(),
            Some([codes::DECLINE]) => exchange.decline(),
            _ => {
                counters.malformed += 1;
                Output::default()
            }
        }
    }

    /// An address of the link that the client is on: what its relay agent says, else its own where it is routed to us, else ours.
    fn link_of(&self, message: &Message, was_unicast: bool) -> Ipv4Addr {
        if !message.giaddr.is_unspecified() {
            let option = message.options.bytes(codes::RELAY_AGENT).unwrap_or_default();
            return relay::link(option).unwrap_or(message.giaddr);
        }
        if was_unicast && !message.ciaddr.is_unspecified() { message.ciaddr } else { self.config.address }
    }
}

/// What one client is told, and the address that is reserved for it.
struct Parameters {
    config: Config,
    v4: V4Config,
    reserved: Option<Ipv4Addr>,
}

fn parameters(config: &ServerConfig, leases: &Leases, message: &Message, client: &ClientId) -> Parameters {
    let subnet = leases.subnet();
    let circuit = message.options.bytes(codes::RELAY_AGENT).and_then(relay::circuit);
    let reservation = subnet.reservations.iter().find(|reservation| match &reservation.client {
        WhichClient::Mac(mac) => mac.bytes() == message.chaddr,
        WhichClient::Id(id) => id == client,
        WhichClient::Circuit(id) => circuit == Some(id.as_slice()),
    });
    let (mut told, mut v4) = (subnet.parameters.clone(), subnet.v4());
    told.hostname = reservation.and_then(|reservation| reservation.hostname.clone());
    v4.server_id = config.address;
    if let Some(rule) = boot::choose(&config.boot, &boot_client(message)) {
        v4.boot_file = Some(rule.file.clone());
        // A URL names its own server.
        let ours = (!rule.is_url()).then(|| config.address.to_string());
        v4.boot_server = rule.server.clone().or(ours);
    }
    Parameters { config: told, v4, reserved: reservation.map(|reservation| reservation.address) }
}

fn boot_client(message: &Message) -> BootClient<'_> {
    let option = |code| message.options.bytes(code).unwrap_or_default();
    let architecture = option(codes::ARCHITECTURE).first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
    let is_ipxe = option(codes::USER_CLASS).windows(4).any(|word| word == b"iPXE") || !option(codes::IPXE).is_empty();
    BootClient { architecture, vendor_class: option(codes::VENDOR_CLASS), is_ipxe }
}

fn event(kind: EventKind, message: &Message, client: ClientId, address: Option<Ipv4Addr>) -> Event {
    let relay = Some(message.giaddr).filter(|relay| !relay.is_unspecified());
    Event { kind, address, client, mac: message.chaddr, hostname: hostname(message), relay, boot_file: None }
}

/// The client's name for itself, as far as it is printable.
fn hostname(message: &Message) -> String {
    let bytes = message.options.bytes(codes::HOSTNAME).unwrap_or_default();
    let is_printable = |byte: &u8| byte.is_ascii_graphic();
    bytes.iter().copied().filter(is_printable).take(HOSTNAME_CHARACTERS).map(char::from).collect()
}

/// One message and what it may change.
struct Exchange<'a> {
    now: Duration,
    config: &'a ServerConfig,
    leases: &'a mut Leases,
    counters: &'a mut Counters,
    source: [u8; 6],
    was_unicast: bool,
    message: &'a Message,
    client: ClientId,
    parameters: Parameters,
}

impl Exchange<'_> {
    fn discover(&mut self) -> Output {
        let (client, hostname) = (self.client.clone(), hostname(self.message));
        let asker = self.asker(&client, &hostname);
        let wanted = self.message.address(codes::REQUESTED_ADDRESS);
        let Some(address) = self.leases.choose(self.now, asker, wanted) else {
            self.counters.exhausted += 1;
            return self.told(EventKind::Exhausted, None);
        };
        self.leases.offer(self.now, asker, address, self.now + OFFER);
        self.counters.offers += 1;
        self.answer(EventKind::Offer, address, codes::OFFER)
    }

    fn request(&mut self) -> Output {
        if self.is_for_another_server() {
            self.leases.withdraw(&self.client);
            return Output::default();
        }
        let Some((address, phase)) = v4::requested(self.message, self.was_unicast) else {
            self.counters.malformed += 1;
            return Output::default();
        };
        let (client, hostname) = (self.client.clone(), hostname(self.message));
        let asker = self.asker(&client, &hostname);
        // What is reserved for a client replaces what it had before.
        let is_replaced = self
            .parameters
            .reserved
            .is_some_and(|reserved| reserved != address && self.leases.may_have(self.now, asker, reserved));
        if self.leases.may_have(self.now, asker, address) && !is_replaced {
            let until = self.now + Duration::from_secs(self.parameters.v4.lease.wire().into());
            let record = self.leases.lease(asker, address, until);
            self.counters.acks += 1;
            let mut output = self.answer(EventKind::Ack(phase), address, codes::ACK);
            output.records.push(record);
            return output;
        }
        // Another server of the link may know the address (RFC 2131 §4.3.2).
        let subnet = self.leases.subnet();
        let is_ours = subnet.is_in_pool(address) || is_replaced || !subnet.network.contains(address);
        if matches!(phase, Phase::Rebooting | Phase::Rebinding) && !is_ours {
            return Output::default();
        }
        self.counters.naks += 1;
        let why = format!("{address} is not this client's address here");
        let reply = self.answers().nak(why);
        self.send(EventKind::Nak, Some(address), reply)
    }

    fn inform(&mut self) -> Output {
        let reply = self.answers().inform();
        self.counters.acks += 1;
        self.send(EventKind::Inform, Some(self.message.ciaddr), reply)
    }

    fn release(&mut self) -> Output {
        if self.is_for_another_server() {
            return Output::default();
        }
        self.counters.releases += 1;
        self.end(EventKind::Release, Some(self.message.ciaddr), (LeaseState::Released, self.now))
    }

    fn decline(&mut self) -> Output {
        if self.is_for_another_server() {
            return Output::default();
        }
        self.counters.declines += 1;
        let until = self.now + Duration::from_secs(self.config.decline_seconds.into());
        self.end(EventKind::Decline, self.message.address(codes::REQUESTED_ADDRESS), (LeaseState::Declined, until))
    }

    fn end(&mut self, kind: EventKind, address: Option<Ipv4Addr>, end: (LeaseState, Duration)) -> Output {
        let record = address.and_then(|address| self.leases.end(&self.client, address, end));
        let mut output = self.told(kind, address.filter(|_| record.is_some()));
        output.records.extend(record);
        output
    }

    fn asker<'a>(&self, client: &'a ClientId, hostname: &'a str) -> Asker<'a> {
        Asker { client, mac: self.message.chaddr, hostname, reserved: self.parameters.reserved }
    }

    fn is_for_another_server(&self) -> bool {
        self.message.address(codes::SERVER_ID).is_some_and(|id| id != self.config.address)
    }

    fn answers(&self) -> Answers<'_> {
        Answers { config: &self.parameters.config, v4: &self.parameters.v4, message: self.message }
    }

    fn told(&self, kind: EventKind, address: Option<Ipv4Addr>) -> Output {
        let event = event(kind, self.message, self.client.clone(), address);
        Output { event: Some(event), ..Output::default() }
    }

    fn answer(&mut self, kind: EventKind, address: Ipv4Addr, code: u8) -> Output {
        let prefix = self.leases.subnet().network.prefix();
        if let Some(address) = terms::Ipv4Network::new_checked(address, prefix) {
            self.parameters.v4.address = address;
        }
        let reply = self.answers().lease(code);
        self.send(kind, Some(address), reply)
    }

    /// Adds what relay agents and firmware demand, and finds the way back.
    fn send(&self, kind: EventKind, address: Option<Ipv4Addr>, mut reply: Reply) -> Output {
        let echoed = |code| self.message.options.bytes(code).map(|value| (code, value.to_vec()));
        let class = self.message.options.bytes(codes::VENDOR_CLASS).unwrap_or_default();
        let is_http = class.starts_with(b"HTTPClient") && self.parameters.v4.boot_file.is_some();
        // UEFI takes a URL only from a server that says so (UEFI specification §24.7).
        let http = is_http.then(|| (codes::VENDOR_CLASS, b"HTTPClient".to_vec()));
        // An agent's option is asked to be the last (RFC 3046 §2.2); it is among the first here, so that no other takes its room.
        let added = [echoed(codes::RELAY_AGENT), echoed(codes::MACHINE_ID), http].into_iter().flatten();
        let at = reply.options.len().min(2);
        reply.options.splice(at..at, added);
        let relay = Some(self.message.giaddr).filter(|relay| !relay.is_unspecified());
        reply.giaddr = relay;
        if relay.is_some() && kind == EventKind::Nak {
            // The client's address is wrong where it is: its agent shall broadcast (RFC 2131 §4.3.2).
            reply.flags |= BROADCAST_FLAG;
        }
        let (payload, _) = reply.encode(self.message.accepted_bytes(self.parameters.config.ipv4_packet_bytes()));
        let (mac, to, port) = self.destination(kind, relay, &reply);
        let link = Link { source: self.config.mac, destination: mac };
        let mut output = self.told(kind, address);
        if let Some(event) = &mut output.event {
            event.boot_file = self.parameters.v4.boot_file.clone().filter(|_| kind != EventKind::Nak);
        }
        output.frames.push(link.udp4((self.config.address, v4::SERVER_PORT), (to, port), &payload));
        output
    }

    /// To the relay agent, else to the client's address where it has one, else to where it listens (RFC 2131 §4.1).
    fn destination(&self, kind: EventKind, relay: Option<Ipv4Addr>, reply: &Reply) -> ([u8; 6], Ipv4Addr, u16) {
        const EVERY_HOST: [u8; 6] = [0xff; 6];
        let everywhere = (EVERY_HOST, Ipv4Addr::BROADCAST, v4::CLIENT_PORT);
        if let Some(relay) = relay {
            return (self.source, relay, v4::SERVER_PORT);
        }
        if kind == EventKind::Nak {
            return everywhere;
        }
        if !self.message.ciaddr.is_unspecified() {
            return (self.source, self.message.ciaddr, v4::CLIENT_PORT);
        }
        match reply.yiaddr.filter(|_| self.message.flags & BROADCAST_FLAG == 0) {
            Some(offered) => (self.message.chaddr, offered, v4::CLIENT_PORT),
            None => everywhere,
        }
    }
}
