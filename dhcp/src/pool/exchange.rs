//! What each message of a client deserves (RFC 2131 §4.3).

use std::net::Ipv4Addr;
use std::time::Duration;

use super::arp;
use super::config::{ServerConfig, WhichClient};
use super::leases::{Asker, Leases};
use super::output::{Counters, Event, EventKind, Output};
use super::probes::Probes;
use super::record::{ClientId, LeaseState};
use super::relay;
use crate::boot::{self, BootClient};
use crate::config::{Config, V4Config};
use crate::frame::Link;
use crate::observations::Phase;
use crate::v4::{self, Answers, BROADCAST_FLAG, Message, Reply, codes};

/// How long an offer is kept for its client.
const OFFER: Duration = Duration::from_secs(60);
/// Most characters that are kept of a client's host name.
const HOSTNAME_CHARACTERS: usize = 63;

/// A client's message and how it came.
#[derive(Debug)]
pub(crate) struct Arrival<'a> {
    pub(crate) frame: &'a [u8],
    /// The Ethernet address it came from: the client's or a router's.
    pub(crate) source: [u8; 6],
    /// The sender's address and port.
    pub(crate) from: (Ipv4Addr, u16),
    /// The port that it asks.
    pub(crate) port: u16,
    pub(crate) was_unicast: bool,
    pub(crate) message: Message,
    pub(crate) client: ClientId,
    /// The address that was looked for on the link meanwhile, and that no host uses.
    pub(crate) unused: Option<Ipv4Addr>,
}

impl Arrival<'_> {
    pub(crate) fn event(&self, kind: EventKind, address: Option<Ipv4Addr>) -> Event {
        let relay = Some(self.message.giaddr).filter(|relay| !relay.is_unspecified());
        let (client, mac, hostname) = (self.client.clone(), self.message.chaddr, hostname(&self.message));
        Event { kind, address, client, mac, hostname, relay, boot_file: None }
    }
}

/// The client's name for itself, as far as it is printable.
fn hostname(message: &Message) -> String {
    let bytes = message.options.bytes(codes::HOSTNAME).unwrap_or_default();
    let is_printable = |byte: &u8| byte.is_ascii_graphic();
    bytes.iter().copied().filter(is_printable).take(HOSTNAME_CHARACTERS).map(char::from).collect()
}

/// What one client is told, and the address that is reserved for it.
pub(crate) struct Parameters {
    config: Config,
    v4: V4Config,
    reserved: Option<Ipv4Addr>,
}

pub(crate) fn parameters(config: &ServerConfig, leases: &Leases, arrival: &Arrival<'_>) -> Parameters {
    let (message, client) = (&arrival.message, &arrival.client);
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
        v4.boot_server = rule.server_or(config.address);
    }
    Parameters { config: told, v4, reserved: reservation.map(|reservation| reservation.address) }
}

pub(crate) fn boot_client(message: &Message) -> BootClient<'_> {
    let option = |code| message.options.bytes(code).unwrap_or_default();
    let architecture = option(codes::ARCHITECTURE).first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
    let is_ipxe = option(codes::USER_CLASS).windows(4).any(|word| word == b"iPXE") || !option(codes::IPXE).is_empty();
    BootClient { architecture, vendor_class: option(codes::VENDOR_CLASS), is_ipxe }
}

/// One message and what it may change.
pub(crate) struct Exchange<'a> {
    pub(crate) now: Duration,
    pub(crate) config: &'a ServerConfig,
    pub(crate) leases: &'a mut Leases,
    pub(crate) probes: &'a mut Probes,
    pub(crate) counters: &'a mut Counters,
    pub(crate) arrival: &'a Arrival<'a>,
    pub(crate) parameters: Parameters,
}

impl<'a> Exchange<'a> {
    pub(crate) fn answer(&mut self) -> Output {
        match self.message().options.array(codes::MESSAGE_TYPE) {
            Some([codes::DISCOVER]) => self.discover(),
            Some([codes::REQUEST]) => self.request(),
            Some([codes::INFORM]) => self.inform(),
            Some([codes::RELEASE]) => self.release(),
            Some([codes::DECLINE]) => self.decline(),
            _ => {
                self.counters.malformed += 1;
                Output::default()
            }
        }
    }

    fn discover(&mut self) -> Output {
        let arrival = self.arrival;
        let hostname = hostname(&arrival.message);
        let asker = self.asker(&hostname);
        let wanted = arrival.message.address(codes::REQUESTED_ADDRESS);
        let Some(address) = self.leases.choose(self.now, asker, wanted) else {
            self.counters.exhausted += 1;
            return self.told(EventKind::Exhausted, None);
        };
        let is_its = self.leases.is_of(self.now, &arrival.client, address);
        self.leases.offer(self.now, asker, address, self.now + OFFER);
        if arrival.unused != Some(address) && arrival.message.giaddr.is_unspecified() {
            let (mac, frame) = (arrival.message.chaddr, arrival.frame);
            if is_its && self.probes.repeat(address, mac, frame) {
                return Output::default();
            }
            if !is_its && self.probes.start(self.now, address, mac, frame) {
                return Output { frames: vec![arp::probe(self.config.mac, address)], ..Output::default() };
            }
        }
        self.counters.offers += 1;
        self.lease(EventKind::Offer, address, codes::OFFER)
    }

    /// Another host uses the address that this client was to get: it is no client's for a time.
    pub(crate) fn conflict(&mut self, address: Ipv4Addr, used_by: [u8; 6]) -> Output {
        self.counters.conflicts += 1;
        self.end(EventKind::Conflict { used_by }, Some(address), LeaseState::Declined)
    }

    fn request(&mut self) -> Output {
        if self.is_for_another_server() {
            if let Some(address) = self.leases.withdraw(&self.arrival.client) {
                self.probes.stop(address);
            }
            return Output::default();
        }
        let Some((address, phase)) = v4::requested(self.message(), self.arrival.was_unicast) else {
            self.counters.malformed += 1;
            return Output::default();
        };
        let hostname = hostname(self.message());
        let asker = self.asker(&hostname);
        // What is reserved for a client replaces what it had before.
        let is_replaced = self
            .parameters
            .reserved
            .is_some_and(|reserved| reserved != address && self.leases.may_have(self.now, asker, reserved));
        if self.leases.may_have(self.now, asker, address) && !is_replaced {
            let granted = Duration::from_secs(self.parameters.v4.lease.wire().into());
            let record = self.leases.lease(self.now, asker, address, granted);
            self.probes.stop(address);
            self.counters.acks += 1;
            let mut output = self.lease(EventKind::Ack(phase), address, codes::ACK);
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
        self.send(EventKind::Inform, Some(self.message().ciaddr), reply)
    }

    fn release(&mut self) -> Output {
        if self.is_for_another_server() {
            return Output::default();
        }
        self.counters.releases += 1;
        self.end(EventKind::Release, Some(self.message().ciaddr), LeaseState::Released)
    }

    fn decline(&mut self) -> Output {
        if self.is_for_another_server() {
            return Output::default();
        }
        self.counters.declines += 1;
        self.end(EventKind::Decline, self.message().address(codes::REQUESTED_ADDRESS), LeaseState::Declined)
    }

    fn end(&mut self, kind: EventKind, address: Option<Ipv4Addr>, state: LeaseState) -> Output {
        let held_back = match state {
            LeaseState::Declined => Duration::from_secs(self.config.decline_seconds.into()),
            LeaseState::Leased | LeaseState::Released => Duration::ZERO,
        };
        let (now, client) = (self.now, &self.arrival.client);
        let record = address.and_then(|address| self.leases.end(now, client, address, (state, held_back)));
        let mut output = self.told(kind, address.filter(|_| record.is_some()));
        output.records.extend(record);
        output
    }

    fn message(&self) -> &'a Message {
        &self.arrival.message
    }

    fn asker<'h>(&self, hostname: &'h str) -> Asker<'h>
    where
        'a: 'h,
    {
        let Arrival { client, message, .. } = self.arrival;
        Asker { client, mac: message.chaddr, hostname, reserved: self.parameters.reserved }
    }

    fn is_for_another_server(&self) -> bool {
        self.message().address(codes::SERVER_ID).is_some_and(|id| id != self.config.address)
    }

    fn answers(&self) -> Answers<'_> {
        Answers { config: &self.parameters.config, v4: &self.parameters.v4, message: self.message() }
    }

    fn told(&self, kind: EventKind, address: Option<Ipv4Addr>) -> Output {
        Output::of(self.arrival.event(kind, address))
    }

    fn lease(&mut self, kind: EventKind, address: Ipv4Addr, code: u8) -> Output {
        let prefix = self.leases.subnet().network.prefix();
        if let Some(address) = terms::Ipv4Network::new_checked(address, prefix) {
            self.parameters.v4.address = address;
        }
        let reply = self.answers().lease(code);
        self.send(kind, Some(address), reply)
    }

    /// Adds what relay agents and firmware demand, and finds the way back.
    fn send(&self, kind: EventKind, address: Option<Ipv4Addr>, mut reply: Reply) -> Output {
        let echoed = |code| self.message().options.bytes(code).map(|value| (code, value.to_vec()));
        let class = self.message().options.bytes(codes::VENDOR_CLASS).unwrap_or_default();
        let is_http = class.starts_with(b"HTTPClient") && self.parameters.v4.boot_file.is_some();
        // UEFI takes a URL only from a server that says so (UEFI specification §24.7).
        let http = is_http.then(|| (codes::VENDOR_CLASS, b"HTTPClient".to_vec()));
        // An agent's option is asked to be the last (RFC 3046 §2.2); it is among the first here, so that no other takes its room.
        let added = [echoed(codes::RELAY_AGENT), echoed(codes::MACHINE_ID), http].into_iter().flatten();
        let at = reply.options.len().min(2);
        reply.options.splice(at..at, added);
        let relay = Some(self.message().giaddr).filter(|relay| !relay.is_unspecified());
        reply.giaddr = relay;
        if relay.is_some() && kind == EventKind::Nak {
            // The client's address is wrong where it is: its agent shall broadcast (RFC 2131 §4.3.2).
            reply.flags |= BROADCAST_FLAG;
        }
        let (payload, _) = reply.encode(self.message().accepted_bytes(self.parameters.config.ipv4_packet_bytes()));
        let (mac, to, port) = self.destination(kind, relay, &reply);
        let link = Link { source: self.config.mac, destination: mac };
        let mut output = self.told(kind, address);
        for event in &mut output.events {
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
            return (self.arrival.source, relay, v4::SERVER_PORT);
        }
        if kind == EventKind::Nak {
            return everywhere;
        }
        if !self.message().ciaddr.is_unspecified() {
            return (self.arrival.source, self.message().ciaddr, v4::CLIENT_PORT);
        }
        match reply.yiaddr.filter(|_| self.message().flags & BROADCAST_FLAG == 0) {
            Some(offered) => (self.message().chaddr, offered, v4::CLIENT_PORT),
            None => everywhere,
        }
    }
}
