//! What each message of the client deserves (RFC 8415 §16, §18.3).

use std::net::Ipv6Addr;
use std::time::Duration;

use super::associations::{self, Purpose};
use super::message::{Message, Writer, status};
use super::{CLIENT_PORT, SERVER_PORT, codes, parameters};
use crate::Frame;
use crate::config::{Config, Lifetime, V6Config};
use crate::frame::{Datagram, Link};
use crate::observations::{Client, Lease, Observations, Phase};

/// All_DHCP_Relay_Agents_and_Servers (RFC 8415 §7.1).
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// Longest DUID: 128 bytes after its type (RFC 8415 §11.1).
const DUID_BYTES: std::ops::RangeInclusive<usize> = 3..=130;

/// Answers a datagram to port 547 that came from a client's Ethernet address, `source`.
pub(crate) fn answer(
    now: Duration,
    config: &Config,
    source: [u8; 6],
    datagram: &Datagram<'_, Ipv6Addr>,
    seen: &mut Observations,
) -> Option<Frame> {
    let v6 = config.v6.as_ref()?;
    // The Server Unicast option is never sent, so no client may send unicast (RFC 8415 §18.4; RFC 9915 removes it).
    let reached_us = datagram.destination == SERVERS && datagram.source.is_unicast_link_local();
    let Some(message) = Message::parse(datagram.payload).filter(|_| reached_us) else {
        seen.ignored.malformed += 1;
        return None;
    };
    seen.v6.received += 1;
    let server = Server { now, config, v6, message: &message };
    let Some(rules) = server.acceptance() else {
        seen.ignored.malformed += 1;
        return None;
    };
    if rules == Acceptance::OtherServer {
        seen.ignored.other_server += 1;
        return None;
    }
    let Some(payload) = server.reply(seen) else {
        seen.ignored.malformed += 1;
        return None;
    };
    let link = Link { source: config.service_mac, destination: source };
    Some(link.udp6((config.service_link_local, SERVER_PORT), (datagram.source, CLIENT_PORT), &payload))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Acceptance {
    Ours,
    OtherServer,
}

struct Server<'a> {
    now: Duration,
    config: &'a Config,
    v6: &'a V6Config,
    message: &'a Message<'a>,
}

impl Server<'_> {
    /// Which identifiers a message must and must not have (RFC 8415 §16); `None` is to be discarded.
    fn acceptance(&self) -> Option<Acceptance> {
        let options = &self.message.options;
        let client = options.first(codes::CLIENT_ID);
        let server = options.first(codes::SERVER_ID);
        if client.is_some_and(|duid| !DUID_BYTES.contains(&duid.len())) {
            return None;
        }
        let (needs_client, server_fits) = match self.message.kind {
            codes::SOLICIT | codes::CONFIRM | codes::REBIND => (true, server.is_none()),
            codes::REQUEST | codes::RENEW | codes::RELEASE | codes::DECLINE => (true, server.is_some()),
            codes::INFORMATION_REQUEST => {
                let ours = [codes::IA_NA, codes::IA_TA, codes::IA_PD];
                (false, ours.into_iter().all(|code| options.first(code).is_none()))
            }
            _ => return None,
        };
        if (needs_client && client.is_none()) || !server_fits {
            return None;
        }
        let is_other = server.is_some_and(|id| id != self.server_id());
        Some(if is_other { Acceptance::OtherServer } else { Acceptance::Ours })
    }

    /// DUID-LL of the service's Ethernet address (RFC 8415 §11.4).
    fn server_id(&self) -> Vec<u8> {
        [&[0, 3, 0, 1][..], &self.config.service_mac.bytes()].concat()
    }

    fn client_id(&self) -> &[u8] {
        self.message.options.first(codes::CLIENT_ID).unwrap_or_default()
    }

    fn reply(&self, seen: &mut Observations) -> Option<Vec<u8>> {
        match self.message.kind {
            codes::SOLICIT => Some(self.solicit(seen)),
            codes::REQUEST => Some(self.lease(Purpose::Assign, Phase::Selecting, seen)),
            codes::RENEW => Some(self.lease(Purpose::Extend, Phase::Renewing, seen)),
            codes::REBIND => Some(self.lease(Purpose::Extend, Phase::Rebinding, seen)),
            codes::CONFIRM => self.confirm(seen),
            codes::RELEASE | codes::DECLINE => Some(self.give_back(seen)),
            codes::INFORMATION_REQUEST => {
                let mut writer = self.start(codes::REPLY);
                self.add_parameters(&mut writer, seen);
                Some(writer.finish())
            }
            _ => None,
        }
    }

    fn solicit(&self, seen: &mut Observations) -> Vec<u8> {
        let options = &self.message.options;
        // Vendor class: enterprise number and length of the first item stand before the text (RFC 8415 §21.16).
        let vendor_class = options.first(codes::VENDOR_CLASS).and_then(|class| class.get(6..)).unwrap_or_default();
        seen.v6.solicit = Some(Client::new(self.now, self.client_id(), vendor_class));
        if options.first(codes::RAPID_COMMIT).is_some() {
            return self.lease(Purpose::Offer, Phase::RapidCommit, seen);
        }
        let mut writer = self.start(codes::ADVERTISE);
        // The highest preference: the client need not wait for others (RFC 8415 §18.2.1).
        writer.option(codes::PREFERENCE, &[255]);
        associations::answer(&mut writer, options, self.v6, Purpose::Offer);
        self.add_parameters(&mut writer, seen);
        writer.finish()
    }

    fn lease(&self, purpose: Purpose, phase: Phase, seen: &mut Observations) -> Vec<u8> {
        let mut writer = self.start(codes::REPLY);
        if phase == Phase::RapidCommit {
            writer.option(codes::RAPID_COMMIT, &[]);
        }
        let answered = associations::answer(&mut writer, &self.message.options, self.v6, purpose);
        if answered.is_granted {
            self.note_lease(phase, seen);
        }
        seen.v6.refusals += u64::from(answered.names_foreign);
        self.add_parameters(&mut writer, seen);
        writer.finish()
    }

    fn note_lease(&self, phase: Phase, seen: &mut Observations) {
        let expires_at = match self.v6.valid {
            Lifetime::Infinite => None,
            Lifetime::Seconds(seconds) => self.now.checked_add(Duration::from_secs(seconds.into())),
        };
        let client_id = Client::new(self.now, self.client_id(), &[]).id;
        seen.v6.lease = Some(Lease { acked_at: self.now, expires_at, phase, client_id });
        seen.v6.grants += 1;
    }

    /// Whether the addresses a client remembers are the guest's (RFC 8415 §18.3.3); without any there is nothing to say.
    /// Another address of the same prefix is not the guest's own: to call it on link would let the client use it.
    fn confirm(&self, seen: &mut Observations) -> Option<Vec<u8>> {
        let addresses = associations::all_addresses(&self.message.options);
        if addresses.is_empty() {
            return None;
        }
        let is_own = addresses.iter().all(|address| *address == self.v6.address);
        let answer = if is_own {
            self.note_lease(Phase::Rebooting, seen);
            status(codes::SUCCESS, "on link")
        } else {
            seen.v6.refusals += 1;
            status(codes::NOT_ON_LINK, "not this client's address")
        };
        let mut writer = self.start(codes::REPLY);
        writer.option(codes::STATUS, &answer);
        Some(writer.finish())
    }

    /// Release or Decline: always a success as a whole (RFC 8415 §18.3.7, §18.3.8). There is one address and one
    /// client, so it is offered again.
    fn give_back(&self, seen: &mut Observations) -> Vec<u8> {
        let mut writer = self.start(codes::REPLY);
        writer.option(codes::STATUS, &status(codes::SUCCESS, ""));
        if associations::answer(&mut writer, &self.message.options, self.v6, Purpose::GiveBack).is_granted {
            seen.v6.lease = None;
            let was_declined = self.message.kind == codes::DECLINE;
            let time = if was_declined { &mut seen.v6.declined_at } else { &mut seen.v6.released_at };
            *time = Some(self.now);
        }
        writer.finish()
    }

    /// A message with what every answer has: both identifiers.
    fn start(&self, kind: u8) -> Writer {
        let mut writer = Writer::new(kind, self.message.transaction, self.config.ipv6_payload_bytes() - 8);
        writer.option(codes::SERVER_ID, &self.server_id());
        if let Some(client) = self.message.options.first(codes::CLIENT_ID) {
            writer.option(codes::CLIENT_ID, client);
        }
        writer
    }

    fn add_parameters(&self, writer: &mut Writer, seen: &mut Observations) {
        let is_stateless = self.message.kind == codes::INFORMATION_REQUEST;
        let option_request = self.message.option_request();
        let (sent, name) = (self.message.options.first(codes::CLIENT_FQDN), codes::CLIENT_FQDN);
        let is_asked = sent.is_some() || option_request.as_ref().is_some_and(|codes| codes.contains(&name));
        if let Some(value) = parameters::full_name(self.config, sent).filter(|_| is_asked) {
            writer.option(name, &value);
        }
        let left_out = parameters::add(writer, self.config, self.v6, option_request, is_stateless);
        seen.v6.search_left_out = left_out.unwrap_or(seen.v6.search_left_out);
    }
}
