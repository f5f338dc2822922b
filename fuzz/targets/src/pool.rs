//! Target `pool`: messages of many clients to the server with pools, and ARP packets. An input is a byte of options of the
//! target's own and records: a byte that says how (see [`UNICAST`] and those after it), then UDP payload or an ARP packet.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use dhcp::boot::BootRule;
use dhcp::pool::{ClientId, LeaseState, Output, Range, Record, Reservation, Server, ServerConfig, Subnet, WhichClient};
use dhcp::{Config, Frame, Lifetime, V4Config};
use dhcproto::Decodable as _;
use dhcproto::v4::{Message, MessageType};
use etherparse::PacketBuilder;

use crate::guest::{self, Content, GUEST, LEASE_SECONDS, SERVER, SERVICE};

/// The message is sent to the server alone.
const UNICAST: u8 = 1;
/// An ARP packet.
const ARP: u8 = 2;
/// The server ends, and another takes over its records.
const RESTART: u8 = 4;
/// The rest of the byte is the seconds until the next record, times this.
const SECONDS_BITS: u32 = 3;
const ETHERNET_BYTES: usize = 14;
/// Addresses of the pools and of reservations.
const MOST_BINDINGS: usize = 4 + 4 + 1;

/// Reads an input and panics when a promise is broken.
pub fn check(input: &[u8]) {
    let Some((flags, rest)) = input.split_first() else { return };
    let probe = if flags & 1 == 0 { Duration::ZERO } else { Duration::from_millis(500) };
    let (mut server, mut now) = (server(probe), Duration::from_secs(1_000_000));
    let mut held = BTreeMap::new();
    for record in guest::records(rest) {
        let Some((how, bytes)) = record.split_first() else { continue };
        let due = server.on_deadline(now);
        verify(&due, now, &mut held);
        assert!(due.records.is_empty());
        let output = server.on_frame(now, &frame(*how, bytes));
        assert!(output.frames.len() <= 1, "{} frames for one", output.frames.len());
        verify(&output, now, &mut held);
        assert!(server.count() <= MOST_BINDINGS, "{} bindings", server.count());
        if how & RESTART != 0 {
            let (records, old) = (server.records(), probe);
            server = self::server(old);
            assert_eq!(server.restore(now, records.clone()), []);
            assert_eq!(server.records(), records);
        }
        now += Duration::from_secs(u64::from(how >> SECONDS_BITS) * 40);
    }
}

fn server(probe: Duration) -> Server {
    let subnet = |network: &str, first: [u8; 4], reservations| {
        let mut parameters = Config::new(GUEST, SERVICE);
        parameters.v4 = Some(V4Config { lease: Lifetime::Seconds(LEASE_SECONDS), ..V4Config::default() });
        let [a, b, c, d] = first;
        let pools = vec![Range { first: first.into(), last: [a, b, c, d + 3].into() }];
        Subnet { network: network.parse().expect("a network"), pools, reservations, parameters }
    };
    let reservation =
        Reservation { client: WhichClient::Mac(GUEST), address: [10, 0, 2, 77].into(), hostname: Some("guest".into()) };
    let boot = |ipxe, file: &str| BootRule { ipxe, file: file.to_owned(), ..BootRule::default() };
    Server::new(ServerConfig {
        mac: SERVICE,
        address: SERVER.into(),
        subnets: vec![
            subnet("10.0.2.0/24", [10, 0, 2, 10], vec![reservation]),
            subnet("10.0.3.0/24", [10, 0, 3, 10], Vec::new()),
        ],
        boot: vec![boot(false, "http://10.0.2.1/ipxe.efi"), boot(true, "boot.ipxe")],
        decline_seconds: 3600,
        probe,
        proxy: false,
    })
    .expect("the configuration is sound")
}

fn frame(how: u8, bytes: &[u8]) -> Frame {
    if how & ARP != 0 {
        return [&[0xff; 6][..], &GUEST.bytes(), &[8, 6], bytes].concat();
    }
    let (mac, ip) = if how & UNICAST == 0 { ([0xff; 6], [0xff; 4]) } else { (SERVICE.bytes(), SERVER) };
    let headers = PacketBuilder::ethernet2(GUEST.bytes(), mac).ipv4([0; 4], ip, 64).udp(68, 67);
    guest::udp(headers, &bytes[..bytes.len().min(guest::MTU - 28)])
}

/// Who holds which address, and until when.
type Held = BTreeMap<Ipv4Addr, (ClientId, Duration)>;

fn verify(output: &Output, now: Duration, held: &mut Held) {
    for Record { address, client, state, until, .. } in &output.records {
        let holder = held.get(address).filter(|(_, until)| *until > now);
        assert!(holder.is_none_or(|(holder, _)| holder == client), "{address} is of {holder:?}, not of {client}");
        if *state == LeaseState::Leased {
            held.insert(*address, (client.clone(), *until));
        } else {
            held.remove(address);
        }
    }
    for frame in &output.frames {
        if frame.get(12..ETHERNET_BYTES) == Some(&[8, 6]) {
            assert_eq!((&frame[..6], &frame[28..32]), (&[0xff; 6][..], &[0; 4][..]), "a probe says nothing of us");
            continue;
        }
        let sent = guest::read(frame);
        assert_eq!(sent.source, SERVICE.bytes());
        let Content::Udp4 { from: 67, to: 67 | 68, payload } = sent.content else { panic!("not from 67: {sent:?}") };
        let message = Message::from_bytes(payload).expect("an answer can be read");
        let address = message.yiaddr();
        let recorded: Vec<_> = output.records.iter().filter(|record| record.state == LeaseState::Leased).collect();
        match message.opts().msg_type() {
            Some(MessageType::Offer) => assert!(!address.is_unspecified()),
            Some(MessageType::Ack) if !address.is_unspecified() => {
                assert!(matches!(&recorded[..], [one] if one.address == address), "{address}: {recorded:?}");
            }
            Some(MessageType::Ack | MessageType::Nak) => assert_eq!((address.octets(), recorded.len()), ([0; 4], 0)),
            other => panic!("a server does not send {other:?}"),
        }
    }
}

/// What recorded clients sent.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let with = |how: u8| move |payload: Vec<u8>| [&[how][..], &payload].concat();
    let sessions = |flags: u8, how: u8| {
        crate::dhcpv4::sessions()
            .into_iter()
            .map(move |session| guest::in_records(&[flags], session.into_iter().map(with(how))))
    };
    sessions(0, 0).chain(sessions(1, 1 << SECONDS_BITS)).collect()
}
