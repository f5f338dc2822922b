//! Scenarios of addresses that another host of the link uses already.

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::MessageType;

use super::probes::MOST_PROBES;
use super::tests::{Answer, SERVER_MAC, ask, at, config, discover, ip, lease, mac, of_flood, request, subnet};
use super::{EventKind, LeaseState, Server, ServerConfig, arp};
use crate::Frame;

const WAIT: Duration = Duration::from_millis(500);

fn server() -> Server {
    Server::new(ServerConfig { probe: WAIT, ..config() }).unwrap()
}

/// An ARP packet by which a host says that it uses the address.
pub(super) fn claim(host: [u8; 6], address: Ipv4Addr) -> Frame {
    let mut frame = arp::probe(SERVER_MAC, address);
    frame[22..28].copy_from_slice(&host);
    frame[28..32].copy_from_slice(&address.octets());
    frame
}

/// Waits as long as the server does, and returns its answer.
fn wait(server: &mut Server, from: Duration) -> Answer {
    for _ in 0..2 {
        let due = server.next_deadline().unwrap();
        let output = server.on_deadline(due);
        if !output.events.is_empty() {
            assert_eq!((due, server.next_deadline()), (from + WAIT, None));
            return Answer::of(output);
        }
        assert_eq!(output.frames.len(), 1, "the second question");
    }
    panic!("no answer")
}

// spec: BOOT-15
#[test]
fn an_address_is_looked_for_on_the_link_before_it_is_offered() {
    let mut server = server();
    let asked = server.on_frame(at(0), &discover(1).frame());
    assert_eq!(asked.frames, [arp::probe(SERVER_MAC, ip(10))]);
    assert_eq!((asked.records, asked.events, server.next_deadline()), (vec![], vec![], Some(at(0) + WAIT / 2)));
    // What the client repeats, and what it says of its own address, changes nothing.
    let another_server = arp::probe(terms::MacAddr::local([0, 0, 0, 0, 2]), ip(10));
    for frame in [discover(1).frame(), claim(mac(1), ip(10)), claim(mac(9), ip(99)), another_server] {
        let output = server.on_frame(at(0), &frame);
        assert_eq!((output.frames, output.records, output.events), (vec![], vec![], vec![]));
    }
    assert!(server.on_deadline(at(0)).frames.is_empty(), "too early");
    let offer = wait(&mut server, at(0));
    assert_eq!((offer.kind(), offer.address()), (Some(MessageType::Offer), ip(10)));
    assert_eq!(request(1, ip(10)).send(&mut server, at(1)).kind(), Some(MessageType::Ack));
    // Its address is its own from now on, and after that it is any host's again.
    assert_eq!(lease(&mut server, 1, at(2)), ip(10));
    assert_eq!(server.on_frame(at(700), &discover(1).frame()).frames, [arp::probe(SERVER_MAC, ip(10))]);
    assert_eq!(server.counters().malformed, 0);
}

// spec: BOOT-15
#[test]
fn an_address_that_another_host_uses_is_set_aside_for_an_hour() {
    let mut server = server();
    let _ = server.on_frame(at(0), &discover(1).frame());
    let found = server.on_frame(at(0), &claim(mac(9), ip(10)));
    let kinds: Vec<_> = found.events.iter().map(|event| (event.kind, event.address, event.mac)).collect();
    assert_eq!(kinds, [(EventKind::Conflict { used_by: mac(9) }, Some(ip(10)), mac(1))]);
    let [record] = &found.records[..] else { panic!("{found:?}") };
    let expected = (ip(10), LeaseState::Declined, at(3600));
    assert_eq!((record.address, record.state, record.until), expected);
    // The next address is looked for at once, and the client gets that.
    assert_eq!(found.frames, [arp::probe(SERVER_MAC, ip(11))]);
    assert_eq!(wait(&mut server, at(0)).address(), ip(11));
    assert_eq!(server.counters().conflicts, 1);
    // It is set aside by the server that takes over the records, too, and no longer than it must be.
    let mut second = self::server();
    assert_eq!(second.restore(at(1), server.records()), []);
    assert_eq!(server.on_frame(at(1), &discover(2).frame()).frames, [arp::probe(SERVER_MAC, ip(12))]);
    assert_eq!(second.on_frame(at(1), &discover(2).option(50, &ip(10).octets()).frame()).frames.len(), 1);
    let wanted = discover(3).option(50, &ip(10).octets()).frame();
    assert_ne!(second.on_frame(at(3599), &wanted).frames, [arp::probe(SERVER_MAC, ip(10))]);
    let wanted = discover(4).option(50, &ip(10).octets()).frame();
    assert_eq!(second.on_frame(at(3600), &wanted).frames, [arp::probe(SERVER_MAC, ip(10))]);
}

// spec: BOOT-15
#[test]
fn a_client_that_has_all_it_wants_is_looked_for_no_more() {
    let mut server = server();
    let _ = server.on_frame(at(0), &discover(1).frame());
    assert_eq!(request(1, ip(10)).send(&mut server, at(0)).kind(), Some(MessageType::Ack));
    assert_eq!(server.next_deadline(), None);
    let _ = server.on_frame(at(0), &discover(2).frame());
    let elsewhere = ask(MessageType::Request, 2).option(54, &[10, 9, 0, 2]).option(50, &ip(77).octets());
    let _ = server.on_frame(at(0), &elsewhere.frame());
    assert_eq!((server.next_deadline(), server.count()), (None, 1));
}

// spec: BOOT-15
#[test]
fn addresses_behind_a_relay_agent_are_offered_unasked() {
    let mut config = config();
    config.subnets.push(subnet("10.8.0.0/24", &[("10.8.0.50", "10.8.0.60")]));
    let mut server = Server::new(ServerConfig { probe: WAIT, ..config }).unwrap();
    let offer = discover(1).relayed().send(&mut server, at(0));
    assert_eq!((offer.kind(), server.next_deadline()), (Some(MessageType::Offer), None));
}

// spec: BOOT-10, BOOT-15
#[test]
fn a_flood_of_clients_is_looked_for_within_a_bound() {
    let mut config = config();
    config.subnets[0] = subnet("10.9.0.0/16", &[("10.9.1.0", "10.9.40.255")]);
    let mut server = Server::new(ServerConfig { probe: WAIT, ..config }).unwrap();
    let mut probes = 0;
    for number in 0..5_000_u32 {
        let output = server.on_frame(at(0), &of_flood(number));
        assert_eq!(output.frames.len(), 1, "each is looked for or offered");
        probes += usize::from(output.events.is_empty());
    }
    assert_eq!(probes, MOST_PROBES);
    let _ = server.on_deadline(at(1));
    assert_eq!(server.on_deadline(at(2)).events.len(), MOST_PROBES);
    assert_eq!(server.next_deadline(), None);
}
