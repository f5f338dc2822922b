//! The fixed part of a message (RFC 2131 §2) and what precedes the options.

use std::net::Ipv4Addr;

use super::codes;
use super::options::{Options, place};
use crate::bytes::Bytes;
use crate::names::Compressed;

/// Values of `op`.
const BOOT_REQUEST: u8 = 1;
const BOOT_REPLY: u8 = 2;
/// Hardware type and address length of Ethernet.
const ETHERNET: [u8; 2] = [1, 6];
/// First bytes of the options area (RFC 2131 §3).
const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// Header bytes up to and with the magic.
const HEADER_BYTES: usize = 240;
const SNAME_BYTES: usize = 64;
const FILE_BYTES: usize = 128;
/// BOOTP's fixed size, below which some clients and relays drop replies (RFC 1542 §2.1).
const LEAST_BYTES: usize = 300;
/// IPv4 and UDP headers, which option 57 counts.
const CARRIER_BYTES: usize = 28;
/// Smallest packet every client accepts (RFC 2131 §2).
const ACCEPTED_BYTES: u16 = 576;
/// The bit of `flags` that asks for broadcasts.
pub(crate) const BROADCAST_FLAG: u16 = 0x8000;

/// A client's message.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) xid: u32,
    pub(crate) flags: u16,
    pub(crate) ciaddr: Ipv4Addr,
    pub(crate) giaddr: Ipv4Addr,
    pub(crate) chaddr: [u8; 6],
    pub(crate) options: Options,
}

impl Message {
    /// `None` when it is cut short, no request, not from an Ethernet client or BOOTP without options.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let mut bytes = Bytes::new(payload);
        if bytes.u8()? != BOOT_REQUEST || bytes.array()? != ETHERNET {
            return None;
        }
        let _hops = bytes.u8()?;
        let xid = bytes.u32()?;
        let _secs = bytes.u16()?;
        let flags = bytes.u16()?;
        let ciaddr = bytes.array()?.into();
        let _yiaddr_and_siaddr = bytes.take(8)?;
        let giaddr = bytes.array()?.into();
        let chaddr = bytes.array()?;
        let _chaddr_padding = bytes.take(10)?;
        let sname = bytes.take(SNAME_BYTES)?;
        let file = bytes.take(FILE_BYTES)?;
        if bytes.array()? != MAGIC {
            return None;
        }
        let options = Options::parse(bytes.rest(), file, sname);
        Some(Self { xid, flags, ciaddr, giaddr, chaddr, options })
    }

    /// The address option `code` holds.
    pub(crate) fn address(&self, code: u8) -> Option<Ipv4Addr> {
        self.options.array::<4>(code).map(Ipv4Addr::from)
    }

    /// Bytes of UDP payload the client takes, never more than the link carries.
    pub(crate) fn accepted_bytes(&self, link_mtu: u16) -> usize {
        let asked = self.options.array(codes::MAX_MESSAGE_BYTES).map_or(ACCEPTED_BYTES, u16::from_be_bytes);
        usize::from(asked.max(ACCEPTED_BYTES).min(link_mtu.max(ACCEPTED_BYTES))) - CARRIER_BYTES
    }
}

/// A server's message.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) xid: u32,
    pub(crate) flags: u16,
    pub(crate) ciaddr: Option<Ipv4Addr>,
    pub(crate) yiaddr: Option<Ipv4Addr>,
    pub(crate) siaddr: Option<Ipv4Addr>,
    pub(crate) giaddr: Option<Ipv4Addr>,
    pub(crate) chaddr: [u8; 6],
    /// At most 63 bytes, or it is left out.
    pub(crate) sname: Vec<u8>,
    /// At most 127 bytes, or it is left out.
    pub(crate) file: Vec<u8>,
    /// The most important first.
    pub(crate) options: Vec<(u8, Vec<u8>)>,
    /// As many of its names as fit behind the other options.
    pub(crate) search: Compressed,
}

impl Reply {
    /// The message in at most `room` bytes of UDP payload, and how many names of the search list it has no room for.
    pub(crate) fn encode(&self, room: usize) -> (Vec<u8>, usize) {
        let text = |value: &[u8], bytes: usize| if value.len() < bytes { value.to_vec() } else { Vec::new() };
        let (mut sname, mut file) = (text(&self.sname, SNAME_BYTES), text(&self.file, FILE_BYTES));
        let free = |field: &[u8], bytes: usize| if field.is_empty() { bytes } else { 0 };
        let rooms = (room.saturating_sub(HEADER_BYTES), free(&file, FILE_BYTES), free(&sname, SNAME_BYTES));
        let areas = place(&self.options, &self.search, rooms.0, rooms.1, rooms.2);
        file.extend(areas.file);
        sname.extend(areas.sname);
        file.resize(FILE_BYTES, 0);
        sname.resize(SNAME_BYTES, 0);

        let octets = |address: Option<Ipv4Addr>| address.unwrap_or(Ipv4Addr::UNSPECIFIED).octets();
        let mut wire = Vec::with_capacity(room);
        wire.push(BOOT_REPLY);
        wire.extend(ETHERNET);
        wire.push(0);
        wire.extend(self.xid.to_be_bytes());
        wire.extend([0, 0]);
        wire.extend(self.flags.to_be_bytes());
        for address in [self.ciaddr, self.yiaddr, self.siaddr, self.giaddr] {
            wire.extend(octets(address));
        }
        wire.extend(self.chaddr);
        wire.extend([0; 10]);
        wire.extend(sname);
        wire.extend(file);
        wire.extend(MAGIC);
        wire.extend(areas.options);
        wire.resize(wire.len().max(LEAST_BYTES), 0);
        (wire, areas.search_left_out)
    }
}
