//! What holds for any messages in any order: no panic, no address of two clients, nothing acknowledged without a record.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::MessageType;
use proptest::collection::vec;
use proptest::prelude::*;

use super::conflicts::claim;
use super::tests::{LEASE_SECONDS, SERVER, ask, at, config, ip, mac, server};
use super::{EventKind, LeaseState, Server, ServerConfig};
use crate::frame::Link;
use crate::tftp::{Request, Transfer};

/// What a client does next: who, which message, about which address, how, and the seconds until then.
type Move = (u8, u8, u8, bool, u64);

/// The kind of a move that is an ARP packet.
const CLAIM: u8 = 9;

/// Sends the messages; a map has who holds what, and until when. `probe` is how long an address is looked for on the link.
fn play(moves: &[Move], probe: Duration) {
    let mut server = Server::new(ServerConfig { probe, ..config() }).unwrap();
    let (mut held, mut now) = (BTreeMap::<Ipv4Addr, (u8, Duration)>::new(), 0);
    for (client, kind, last, was_unicast, seconds) in moves.iter().copied() {
        now += seconds;
        let (now, address) = (at(now), ip(last));
        assert_eq!(server.on_deadline(now).records, []);
        if kind == CLAIM {
            for record in server.on_frame(now, &claim(mac(client), address)).records {
                let holder = held.get(&record.address).filter(|(_, until)| *until > now);
                assert_eq!((record.state, holder), (LeaseState::Declined, None), "{record:?}");
            }
            continue;
        }
        let message = ask(MessageType::from(kind), client).option(50, &address.octets());
        let message =
            if was_unicast { message.ciaddr(address).unicast() } else { message.option(54, &SERVER.octets()) };
        let answer = message.send(&mut server, now);
        let event = answer.output.events.first().map(|event| event.kind);
        match event {
            Some(EventKind::Ack(_)) => {
                let given = answer.address();
                let holder = held.get(&given).filter(|(_, until)| *until > now);
                assert!(
                    holder.is_none_or(|(holder, _)| *holder == client),
                    "{given} is of {holder:?}, not of {client}"
                );
                let until = now + Duration::from_secs(LEASE_SECONDS.into());
                assert_eq!(
                    answer.output.records.iter().map(|one| (one.address, one.until)).collect::<Vec<_>>(),
                    [(given, until)]
                );
                held.insert(given, (client, until));
            }
            Some(EventKind::Release | EventKind::Decline) => {
                for record in &answer.output.records {
                    assert_ne!(record.state, LeaseState::Leased);
                    held.remove(&record.address);
                }
            }
            _ => assert_eq!(answer.output.records, []),
        }
    }
    // A server that takes over the records knows every holder.
    let (mut next, now) = (super::tests::server(), at(now));
    assert_eq!(next.restore(now, server.records()), []);
    for (address, (client, _)) in held.iter().filter(|(_, (_, until))| *until > now) {
        let renewal = ask(MessageType::Request, *client).ciaddr(*address).unicast();
        assert_eq!(renewal.send(&mut next, now).kind(), Some(MessageType::Ack), "{address} of {client}");
    }
}

proptest! {
    // spec: BOOT-2, BOOT-3
    #[test]
    fn whatever_clients_send_no_address_is_of_two(moves in vec((0..6_u8, 0..=CLAIM, 9..14_u8, any::<bool>(), 0..400_u64), 1..60), is_looked_for in any::<bool>()) {
        play(&moves, Duration::from_secs(u64::from(is_looked_for) * 2));
    }

    // spec: BOOT-10
    #[test]
    fn any_bytes_are_read_without_panic(bytes in vec(any::<u8>(), 0..600), options in vec(any::<u8>(), 0..300)) {
        let mut server = server();
        let _ = server.on_frame(at(0), &bytes);
        let _ = server.on_frame(at(0), &[&[0; 12][..], &[8, 6], &bytes].concat());
        let link = Link { source: terms::MacAddr::local([0; 5]), destination: [0xff; 6] };
        for payload in [bytes.clone(), [&[1, 1, 6][..], &[0; 233], &[99, 130, 83, 99], &options].concat()] {
            let _ = server.on_frame(at(0), &link.udp4((SERVER, 68), (SERVER, 67), &payload));
        }
        let _ = Request::parse(&bytes);
        let file = [b"\0\x01file\0octet\0", &options[..]].concat();
        if let Ok(request) = Request::parse(&file) {
            let (mut transfer, _) = Transfer::start(at(0), &request, 100_000);
            bytes.chunks(4).for_each(|packet| drop(transfer.on_packet(at(0), packet)));
        }
    }
}
