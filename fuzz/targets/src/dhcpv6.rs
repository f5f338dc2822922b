//! Target `dhcpv6`: a guest's DHCPv6 messages, one after the other. An input is a byte of options of the target's own
//! and records of UDP payload.

use std::net::Ipv6Addr;

use dhcp::Frame;
use dhcproto::Decodable as _;
use dhcproto::v6::{DhcpOption, Message, MessageType, OptionCode};
use etherparse::PacketBuilder;

use crate::guest::{self, Content, GUEST, SERVICE};

/// IPv6 and UDP headers.
const CARRIER_BYTES: usize = 48;
/// Ethernet, IPv6 and UDP headers of a recorded frame.
const HEADERS_BYTES: usize = 62;
/// All_DHCP_Relay_Agents_and_Servers.
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// Reads an input and panics when a promise is broken.
pub fn check(input: &[u8]) {
    let Some((flags, rest)) = input.split_first() else { return };
    let mut engine = guest::engine(flags & 1 != 0);
    for (number, payload) in (0..).zip(guest::records(rest)) {
        let payload = &payload[..payload.len().min(guest::MTU - CARRIER_BYTES)];
        let answers = engine.on_frame(guest::second(number), &frame(payload));
        assert!(answers.len() <= 1, "{} answers to one message", answers.len());
        answers.iter().for_each(|answer| verify(payload, answer));
    }
}

fn frame(payload: &[u8]) -> Frame {
    let headers = PacketBuilder::ethernet2(GUEST.bytes(), [0x33, 0x33, 0, 1, 0, 2])
        .ipv6(guest::GUEST_LOCAL.octets(), SERVERS.octets(), 64)
        .udp(546, 547);
    guest::udp(headers, payload)
}

fn verify(asked: &[u8], answer: &[u8]) {
    let sent = guest::read(answer);
    assert_eq!((sent.destination, sent.source), (GUEST.bytes(), SERVICE.bytes()));
    let Content::Udp6 { from: 547, to: 546, payload } = sent.content else { panic!("not from 547 to 546: {sent:?}") };
    let message = Message::from_bytes(payload).expect("an answer can be read");
    assert!(matches!(message.msg_type(), MessageType::Advertise | MessageType::Reply), "{:?}", message.msg_type());
    assert_eq!(payload[1..4], asked[1..4], "the transaction");
    let own = [&[0, 3, 0, 1][..], &SERVICE.bytes()].concat();
    let is_own = |option: &DhcpOption| matches!(option, DhcpOption::ServerId(id) if *id == own);
    assert!(message.opts().get_all(OptionCode::ServerId).is_some_and(|ids| ids.len() == 1 && is_own(&ids[0])));
    assert_eq!(client_id(payload), client_id(asked), "the client's identifier is repeated as it came");
    for option in message.opts().iter() {
        if let DhcpOption::IANA(association) = option {
            verify_addresses(association.opts.iter());
            assert!(association.t1 <= association.t2);
        }
    }
}

fn verify_addresses<'a>(options: impl Iterator<Item = &'a DhcpOption>) {
    let mut granted = 0;
    for option in options {
        let DhcpOption::IAAddr(address) = option else { continue };
        assert!(address.preferred_life <= address.valid_life);
        // A lifetime of zero takes back what the guest should not use; only its own address is ever granted.
        if address.valid_life > 0 {
            granted += 1;
            assert_eq!((address.addr, address.valid_life), (guest::ADDRESS6, guest::LEASE_SECONDS));
        }
    }
    assert!(granted <= 1, "the address is granted {granted} times in one association");
}

/// The first option 1 of a message, read by hand: the reader would stop at a broken option behind it.
fn client_id(message: &[u8]) -> Option<&[u8]> {
    let mut rest = message.get(4..)?;
    loop {
        let (head, tail) = rest.split_at_checked(4)?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let (value, tail) = tail.split_at_checked(length)?;
        if head[..2] == [0, 1] {
            return Some(value);
        }
        rest = tail;
    }
}

/// What recorded clients sent.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let is_v6 = |frame: &Frame| frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.get(20) == Some(&17);
    let payload = |frame: Frame| frame.get(HEADERS_BYTES..).unwrap_or_default().to_vec();
    let session = |frames: Vec<Frame>| frames.into_iter().filter(is_v6).map(payload);
    guest::captures().into_iter().map(|frames| guest::in_records(&[0], session(frames))).collect()
}
