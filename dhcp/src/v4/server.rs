//! What each message of the client deserves (RFC 2131 §4.3).

use std::net::Ipv4Addr;
use std::time::Duration;

use super::answers::Answers;
use super::codes;
use super::message::{BROADCAST_FLAG, Message, Reply};
use super::request::requested;
use super::{CLIENT_PORT, SERVER_PORT};
use crate::Frame;
use crate::config::{Config, Lifetime, V4Config};
use crate::frame::{Datagram, Link};
use crate::observations::{Client, Lease, Observations, Phase};

/// Answers a datagram to port 67 that came from a client's Ethernet address, `source`.
pub(crate) fn answer(
    now: Duration,
    config: &Config,
    source: [u8; 6],
    datagram: &Datagram<'_, Ipv4Addr>,
    seen: &mut Observations,
) -> Option<Frame> {
    let v4 = config.v4.as_ref()?;
    let Some(message) = Message::parse(datagram.payload) else {
        seen.ignored.malformed += 1;
        return None;
    };
    // A guest is no relay agent, and an answer to one would leave the link.
    if message.chaddr != source || !message.giaddr.is_unspecified() {
        seen.ignored.not_our_client += 1;
        return None;
    }
    seen.v4.received += 1;
    let server =
        Server { now, config, v4, source, message: &message, answers: Answers { config, v4, message: &message } };
    let was_unicast = !datagram.destination.is_broadcast();
    match message.options.array(codes::MESSAGE_TYPE) {
        Some([codes::DISCOVER]) => Some(server.discover(seen)),
        Some([codes::REQUEST]) => server.request(was_unicast, seen),
        Some([codes::INFORM]) => Some(server.send(server.answers.inform(), seen)),
        Some([codes::RELEASE]) => server.give_back(false, seen),
        Some([codes::DECLINE]) => server.give_back(true, seen),
        _ => {
            seen.ignored.malformed += 1;
            None
        }
    }
}

struct Server<'a> {
    now: Duration,
    config: &'a Config,
    v4: &'a V4Config,
    source: [u8; 6],
    message: &'a Message,
    answers: Answers<'a>,
}

impl Server<'_> {
    fn discover(&self, seen: &mut Observations) -> Frame {
        let option = |code| self.message.options.bytes(code).unwrap_or_default();
        seen.v4.discover = Some(Client::new(self.now, option(codes::CLIENT_ID), option(codes::VENDOR_CLASS)));
        if self.message.options.bytes(codes::RAPID_COMMIT).is_some() {
            return self.ack(Phase::RapidCommit, seen);
        }
        self.send(self.answers.lease(codes::OFFER), seen)
    }

    fn request(&self, was_unicast: bool, seen: &mut Observations) -> Option<Frame> {
        let server_id = self.message.address(codes::SERVER_ID);
        // The client chose another server; ours takes that as a refusal of its offer.
        if server_id.is_some_and(|id| id != self.v4.server_id) {
            seen.ignored.other_server += 1;
            return None;
        }
        let Some((address, phase)) = requested(self.message, was_unicast) else {
            seen.ignored.malformed += 1;
            return None;
        };
        if address == self.v4.address.ip() {
            return Some(self.ack(phase, seen));
        }
        // This is the client's only server, so silence (RFC 2131 §4.3.2, INIT-REBOOT) would only cost it time.
        seen.v4.naks += 1;
        Some(self.nak(address, seen))
    }

    /// RELEASE or DECLINE: noted, never answered. There is one address and one client, so it is offered again.
    fn give_back(&self, was_declined: bool, seen: &mut Observations) -> Option<Frame> {
        let address =
            if was_declined { self.message.address(codes::REQUESTED_ADDRESS) } else { Some(self.message.ciaddr) };
        let other_server = self.message.address(codes::SERVER_ID).is_some_and(|id| id != self.v4.server_id);
        if other_server || address != Some(self.v4.address.ip()) {
            seen.ignored.other_server += 1;
            return None;
        }
        seen.v4.lease = None;
        let time = if was_declined { &mut seen.v4.declined_at } else { &mut seen.v4.released_at };
        *time = Some(self.now);
        None
    }

    fn ack(&self, phase: Phase, seen: &mut Observations) -> Frame {
        let client_id = self.message.options.bytes(codes::CLIENT_ID).unwrap_or_default();
        let expires_at = match self.v4.lease {
            Lifetime::Infinite => None,
            Lifetime::Seconds(seconds) => self.now.checked_add(Duration::from_secs(seconds.into())),
        };
        let client_id = Client::new(self.now, client_id, &[]).id;
        seen.v4.lease = Some(Lease { acked_at: self.now, expires_at, phase, client_id });
        seen.v4.acks += 1;
        let mut reply = self.answers.lease(codes::ACK);
        if phase == Phase::RapidCommit {
            reply.options.push((codes::RAPID_COMMIT, Vec::new()));
        }
        self.send(reply, seen)
    }

    fn nak(&self, address: Ipv4Addr, seen: &mut Observations) -> Frame {
        let why = format!("{address} is not this client's address, {} is", self.v4.address.ip());
        self.send_to(Ipv4Addr::BROADCAST, &self.answers.nak(why), seen)
    }

    /// To the client's address where it has one, else to where it listens (RFC 2131 §4.1).
    fn send(&self, reply: Reply, seen: &mut Observations) -> Frame {
        let client = Some(self.message.ciaddr).filter(|client| !client.is_unspecified());
        let offered = reply.yiaddr.filter(|_| self.message.flags & BROADCAST_FLAG == 0);
        self.send_to(client.or(offered).unwrap_or(Ipv4Addr::BROADCAST), &reply, seen)
    }

    /// On the wire to the client alone, whatever the IP destination is.
    fn send_to(&self, destination: Ipv4Addr, reply: &Reply, seen: &mut Observations) -> Frame {
        let (payload, left_out) = reply.encode(self.message.accepted_bytes(self.config.ipv4_packet_bytes()));
        if !reply.search.ends.is_empty() {
            seen.v4.search_left_out = left_out;
        }
        let link = Link { source: self.config.service_mac, destination: self.source };
        link.udp4((self.v4.server_id, SERVER_PORT), (destination, CLIENT_PORT), &payload)
    }
}
