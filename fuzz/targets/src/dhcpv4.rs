//! Target `dhcpv4`: a guest's DHCPv4 messages, one after the other. An input is a byte of options of the target's own
//! and records of UDP payload.

use dhcp::Frame;
use dhcproto::Decodable as _;
use dhcproto::v4::{DhcpOption, Message, MessageType, OptionCode};
use etherparse::PacketBuilder;

use crate::guest::{self, Content, GUEST, SERVICE};

/// IPv4 and UDP headers of an answer.
const CARRIER_BYTES: usize = 28;
/// Ethernet, IPv4 and UDP headers of a recorded frame.
const HEADERS_BYTES: usize = 42;
/// BOOTP's fixed size.
const LEAST_BYTES: usize = 300;

/// Reads an input and panics when a promise is broken.
pub fn check(input: &[u8]) {
    let Some((flags, rest)) = input.split_first() else { return };
    let (much, is_unicast) = (flags & 1 != 0, flags & 2 != 0);
    let mut engine = guest::engine(much);
    for (number, payload) in (0..).zip(guest::records(rest)) {
        let payload = &payload[..payload.len().min(guest::MTU - CARRIER_BYTES)];
        let answers = engine.on_frame(guest::second(number), &frame(payload, is_unicast));
        assert!(answers.len() <= 1, "{} answers to one message", answers.len());
        answers.iter().for_each(|answer| verify(payload, answer));
    }
}

fn frame(payload: &[u8], is_unicast: bool) -> Frame {
    let (mac, ip) = if is_unicast { (SERVICE.bytes(), guest::SERVER) } else { ([0xff; 6], [0xff; 4]) };
    let headers = PacketBuilder::ethernet2(GUEST.bytes(), mac).ipv4([0; 4], ip, 64).udp(68, 67);
    guest::udp(headers, payload)
}

fn verify(asked: &[u8], answer: &[u8]) {
    let sent = guest::read(answer);
    assert_eq!((sent.destination, sent.source), (GUEST.bytes(), SERVICE.bytes()));
    let Content::Udp4 { from: 67, to: 68, payload } = sent.content else { panic!("not from 67 to 68: {sent:?}") };
    assert!(payload.len() >= LEAST_BYTES && payload.len() + CARRIER_BYTES <= guest::MTU);
    // Operation, then what an answer repeats: transaction, relay, client (RFC 2131 section 4.3.1).
    assert_eq!(payload[0], 2);
    assert_eq!(payload[4..8], asked[4..8]);
    assert_eq!(payload[24..28], [0; 4]);
    assert_eq!(payload[28..34], GUEST.bytes());
    let message = Message::from_bytes(payload).expect("an answer can be read");
    let options = message.opts();
    let address = |option: Option<&DhcpOption>| match option {
        Some(DhcpOption::ServerIdentifier(address)) => Some(address.octets()),
        _ => None,
    };
    assert_eq!(address(options.get(OptionCode::ServerIdentifier)), Some(guest::SERVER));
    let lease = match options.get(OptionCode::AddressLeaseTime) {
        Some(DhcpOption::AddressLeaseTime(seconds)) => Some(*seconds),
        _ => None,
    };
    let handed_out = message.yiaddr().octets();
    match options.msg_type() {
        Some(MessageType::Offer) => assert_eq!((handed_out, lease), (guest::ADDRESS, Some(guest::LEASE_SECONDS))),
        Some(MessageType::Ack) if lease.is_some() => {
            assert_eq!((handed_out, lease), (guest::ADDRESS, Some(guest::LEASE_SECONDS)));
        }
        Some(MessageType::Ack | MessageType::Nak) => assert_eq!((handed_out, lease), ([0; 4], None)),
        other => panic!("a server does not send {other:?}"),
    }
}

/// What recorded clients sent.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    sessions().into_iter().map(|session| guest::in_records(&[0], session)).collect()
}

/// The payloads of each recorded client.
pub(crate) fn sessions() -> Vec<Vec<Vec<u8>>> {
    let is_v4 = |frame: &Frame| frame.get(12..14) == Some(&[8, 0]) && frame.len() > HEADERS_BYTES;
    let payload = |frame: Frame| frame[HEADERS_BYTES..].to_vec();
    let session = |frames: Vec<Frame>| frames.into_iter().filter(is_v4).map(payload).collect();
    guest::captures().into_iter().map(session).collect()
}
