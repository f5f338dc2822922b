//! What a server with pools hands to its caller, and what it counts.

use std::net::Ipv4Addr;

use super::record::{ClientId, Record};
use crate::Frame;
use crate::observations::Phase;

/// What an answer demands of the caller: first make the records durable, then send the frames.
#[derive(Debug, Default)]
pub struct Output {
    /// To be recorded before any frame is sent.
    pub records: Vec<Record>,
    /// To be sent on the interface.
    pub frames: Vec<Frame>,
    /// For the log.
    pub events: Vec<Event>,
}

impl Output {
    pub(crate) fn of(event: Event) -> Self {
        Self { events: vec![event], ..Self::default() }
    }

    /// Both, this one first.
    pub(crate) fn and(mut self, later: Self) -> Self {
        self.records.extend(later.records);
        self.frames.extend(later.frames);
        self.events.extend(later.events);
        self
    }
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
    /// The address was not offered, because another host answered to it.
    Conflict {
        /// The Ethernet address of that host.
        used_by: [u8; 6],
    },
    /// A boot file was told, and another server gives the address.
    Boot,
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
    /// Addresses found to be used by others before they were offered.
    pub conflicts: u64,
    /// Clients for which no address was left.
    pub exhausted: u64,
    /// Frames that are no DHCP message.
    pub malformed: u64,
    /// Messages not answered because of the rate limit.
    pub over_limit: u64,
}
