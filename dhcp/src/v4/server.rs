//! What each message of the client deserves (RFC 2131 §4.3).

use std::net::Ipv4Addr;
use std::time::Duration;

use super::codes;
use super::message::{BROADCAST_FLAG, Message, Reply};
use super::{CLIENT_PORT, SERVER_PORT, parameters};
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
    let server = Server { now, config, v4, source, message: &message };
    let was_unicast = !datagram.destination.is_broadcast();
    match message.options.array(codes::MESSAGE_TYPE) {
        Some([codes::DISCOVER]) => Some(server.discover(seen)),
        Some([codes::REQUEST]) => server.request(was_unicast, seen),
        Some([codes::INFORM]) => Some(server.inform(seen)),
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
}

impl Server<'_> {
    fn discover(&self, seen: &mut Observations) -> Frame {
        let option = |code| self.message.options.bytes(code).unwrap_or_default();
        seen.v4.discover = Some(Client::new(self.now, option(codes::CLIENT_ID), option(codes::VENDOR_CLASS)));
        if self.message.options.bytes(codes::RAPID_COMMIT).is_some() {
            return self.ack(Phase::RapidCommit, seen);
        }
        self.send(self.lease(codes::OFFER), seen)
    }

    /// The four states of RFC 2131 §4.3.2 are told apart by server identifier, requested address and `ciaddr`.
    fn request(&self, was_unicast: bool, seen: &mut Observations) -> Option<Frame> {
        let server_id = self.message.address(codes::SERVER_ID);
        // The client chose another server; ours takes that as a refusal of its offer.
        if server_id.is_some_and(|id| id != self.v4.server_id) {
            seen.ignored.other_server += 1;
            return None;
        }
        let ciaddr = Some(self.message.ciaddr).filter(|address| !address.is_unspecified());
        let requested = self.message.address(codes::REQUESTED_ADDRESS);
        let (address, phase) = match (server_id, requested, ciaddr) {
            (Some(_), Some(address), _) | (Some(_), None, Some(address)) => (address, Phase::Selecting),
            (None, Some(address), None) => (address, Phase::Rebooting),
            (None, _, Some(address)) if was_unicast => (address, Phase::Renewing),
            (None, _, Some(address)) => (address, Phase::Rebinding),
            (_, None, None) => {
                seen.ignored.malformed += 1;
                return None;
            }
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

    /// Parameters without address and lease (RFC 2131 §4.3.5).
    fn inform(&self, seen: &mut Observations) -> Frame {
        let mut reply = self.reply(codes::ACK);
        reply.ciaddr = Some(self.message.ciaddr);
        self.add_parameters(&mut reply);
        self.send(reply, seen)
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
        let mut reply = self.lease(codes::ACK);
        reply.ciaddr = Some(self.message.ciaddr);
        if phase == Phase::RapidCommit {
            reply.options.push((codes::RAPID_COMMIT, Vec::new()));
        }
        self.send(reply, seen)
    }

    /// An OFFER or ACK with everything in it.
    fn lease(&self, kind: u8) -> Reply {
        let mut reply = self.reply(kind);
        reply.yiaddr = Some(self.v4.address.ip());
        let mut seconds = |code, seconds: u32| reply.options.push((code, seconds.to_be_bytes().to_vec()));
        seconds(codes::LEASE_SECONDS, self.v4.lease.wire());
        if self.v4.lease != Lifetime::Infinite {
            seconds(codes::RENEWAL_SECONDS, self.v4.lease.percent(50));
            seconds(codes::REBINDING_SECONDS, self.v4.lease.wire().saturating_sub(self.v4.lease.wire().div_ceil(8)));
        }
        self.add_parameters(&mut reply);
        reply
    }

    fn nak(&self, address: Ipv4Addr, seen: &mut Observations) -> Frame {
        let mut reply = self.reply(codes::NAK);
        let text = format!("{address} is not this client's address, {} is", self.v4.address.ip());
        reply.options.push((codes::MESSAGE, text.into_bytes()));
        self.send_to(Ipv4Addr::BROADCAST, &reply, seen)
    }

    /// What every answer has: type, server, and the client's own identifier (RFC 6842).
    fn reply(&self, kind: u8) -> Reply {
        let mut options =
            vec![(codes::MESSAGE_TYPE, vec![kind]), (codes::SERVER_ID, self.v4.server_id.octets().to_vec())];
        if let Some(id) = self.message.options.bytes(codes::CLIENT_ID).filter(|id| id.len() <= 255) {
            options.push((codes::CLIENT_ID, id.to_vec()));
        }
        let (xid, flags, chaddr) = (self.message.xid, self.message.flags & BROADCAST_FLAG, self.message.chaddr);
        Reply { xid, flags, chaddr, options, ..Reply::default() }
    }

    fn add_parameters(&self, reply: &mut Reply) {
        let addresses = self.message.options.bytes(codes::PARAMETER_LIST);
        let (options, search) = parameters::requested(self.config, self.v4, addresses);
        reply.options.extend(options);
        reply.search = search;
        // Firmware reads the header's fields, not the options.
        let bytes = |text: &Option<String>| text.as_ref().map(|text| text.as_bytes().to_vec()).unwrap_or_default();
        reply.file = bytes(&self.v4.boot_file);
        reply.sname = bytes(&self.v4.boot_server);
        reply.siaddr = self.v4.boot_server.as_ref().and_then(|server| server.parse().ok());
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
