//! Scenarios of routers and neighbours, read back by etherparse.

use std::net::Ipv6Addr;
use std::time::Duration;

use terms::MacAddr;

use crate::frame::{Link, multicast_mac, solicited_node};
use crate::{Config, Engine, Frame, GatewayState, Lifetime, Prefix, Router, V4Config, V6Config};

const GUEST: MacAddr = MacAddr::local([0, 0, 0, 0, 7]);
const SERVICE: MacAddr = MacAddr::local([0, 0, 0, 0, 8]);
const GATEWAY: MacAddr = MacAddr::local([0, 0, 0, 0, 1]);
const OTHER_GATEWAY: MacAddr = MacAddr::local([0, 0, 0, 0, 2]);
const GUEST_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7);
const SERVICE_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 8);
const VIRTUAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x7476, 1);
const GATEWAY_GLOBAL: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn v6(router: Router) -> V6Config {
    V6Config {
        address: "fd10:0:2::2".parse().unwrap(),
        preferred: Lifetime::Infinite,
        valid: Lifetime::Infinite,
        router,
        router_lifetime_seconds: 1800,
        prefixes: vec![
            Prefix { network: "fd10:0:2::/120".parse().unwrap(), on_link: true },
            Prefix { network: "fd11::/64".parse().unwrap(), on_link: false },
        ],
        routes: Vec::new(),
        boot_file_url: None,
    }
}

fn config(router: Router) -> Config {
    let mut config = Config::new(GUEST, SERVICE);
    config.mtu = Some(1450.try_into().unwrap());
    config.dns = vec!["fd00::a".parse().unwrap()];
    config.search = vec!["cluster.local".parse().unwrap()];
    config.v6 = Some(v6(router));
    config
}

fn engine(router: Router) -> Engine {
    Engine::new(config(router)).unwrap()
}

fn virtual_router() -> Router {
    Router::Virtual { link_local: VIRTUAL, gateway: GATEWAY_GLOBAL }
}

/// An ICMPv6 message as etherparse reads it; its checksum is right.
#[derive(Debug)]
struct Advertised {
    from: Ipv6Addr,
    to: Ipv6Addr,
    mac: [u8; 6],
    kind: u8,
    body: Vec<u8>,
}

fn parse(frame: &[u8]) -> Advertised {
    let packet = etherparse::PacketHeaders::from_ethernet_slice(frame).unwrap();
    let Some(etherparse::LinkHeader::Ethernet2(ethernet)) = &packet.link else { panic!("no Ethernet") };
    // What is asked on the network comes from the address it delivers to, what the guest hears from the service's.
    let is_question = frame[54] == 135;
    assert_eq!(ethernet.source, if is_question { GUEST } else { SERVICE }.bytes());
    let Some(etherparse::NetHeaders::Ipv6(ip, _)) = &packet.net else { panic!("no IPv6") };
    assert_eq!(ip.hop_limit, 255);
    let message = &frame[14 + 40..];
    let slice = etherparse::Icmpv6Slice::from_slice(message).unwrap();
    assert!(slice.is_checksum_valid(ip.source, ip.destination));
    Advertised {
        from: ip.source.into(),
        to: ip.destination.into(),
        mac: ethernet.destination,
        kind: message[0],
        body: message[4..].to_vec(),
    }
}

fn parse_one(frames: &[Frame]) -> Advertised {
    assert_eq!(frames.len(), 1, "one frame expected");
    parse(&frames[0])
}

/// Neighbour discovery options as (type, value).
fn options(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (mut at, mut found) = (0, Vec::new());
    while at < bytes.len() {
        let length = usize::from(bytes[at + 1]) * 8;
        found.push((bytes[at], bytes[at + 2..at + length].to_vec()));
        at += length;
    }
    found
}

fn router_solicitation() -> Frame {
    let link = Link { source: GUEST, destination: multicast_mac(ALL_ROUTERS) };
    link.icmp6(GUEST_LOCAL, ALL_ROUTERS, 133, &[0; 4])
}

fn neighbour_solicitation(from: Ipv6Addr, target: Ipv6Addr) -> Frame {
    let group = solicited_node(target);
    let body = [&[0; 4][..], &target.octets()].concat();
    Link { source: GUEST, destination: multicast_mac(group) }.icmp6(from, group, 135, &body)
}

fn gateway_answers(mac: MacAddr, flags: u8) -> Frame {
    let body = [&[flags, 0, 0, 0][..], &GATEWAY_GLOBAL.octets(), &[2, 1], &mac.bytes()].concat();
    Link { source: mac, destination: GUEST.bytes() }.icmp6(GATEWAY_GLOBAL, SERVICE_LOCAL, 136, &body)
}

#[test]
fn a_solicitation_is_answered_with_all_the_link_has() {
    let gateway = Router::Gateway { link_local: "fe80::ff:fe00:0".parse().unwrap(), link_layer: Some(GATEWAY) };
    let answer = parse_one(&engine(gateway).on_frame(at(1), &router_solicitation()));
    assert_eq!((answer.kind, answer.to, answer.mac), (134, ALL_NODES, GUEST.bytes()));
    assert_eq!(answer.from, "fe80::ff:fe00:0".parse::<Ipv6Addr>().unwrap());
    assert_eq!(answer.body[..4], [64, 0xc0, 0x07, 0x08]);
    let options = options(&answer.body[12..]);
    let kinds: Vec<u8> = options.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [1, 5, 3, 3, 25, 31]);
    assert_eq!(options[0].1, GATEWAY.bytes());
    assert_eq!(options[1].1, [0, 0, 0, 0, 0x05, 0xaa]);
    assert_eq!(options[2].1[..2], [120, 0x80], "on-link, not autonomous");
    assert_eq!(options[3].1[..2], [64, 0], "neither on-link nor autonomous");
    assert_eq!(options[4].1[6..], "fd00::a".parse::<Ipv6Addr>().unwrap().octets());
    assert_eq!(options[5].1[6..], *b"\x07cluster\x05local\x00\x00");
}

#[test]
fn a_virtual_router_leaves_its_link_layer_to_neighbour_discovery() {
    let answer = parse_one(&engine(virtual_router()).on_frame(at(1), &router_solicitation()));
    assert_eq!(answer.from, VIRTUAL);
    assert!(options(&answer.body[12..]).iter().all(|(kind, _)| *kind != 1));
}

#[test]
fn without_a_router_the_advertisement_has_no_default_route_but_says_dhcp() {
    let answer = parse_one(&engine(Router::None).on_frame(at(1), &router_solicitation()));
    assert_eq!((answer.from, &answer.body[1..4]), (SERVICE_LOCAL, &[0xc0, 0, 0][..]));
}

// spec: NIC-5
#[test]
fn networks_behind_a_router_without_a_default_route_are_announced() {
    let mut config = config(virtual_router());
    let v6 = config.v6.as_mut().unwrap();
    v6.router_lifetime_seconds = 0;
    v6.routes = ["::/0", "fd81::/48", "fd81::1/128"].map(|to| to.parse().unwrap()).to_vec();
    let mut engine = Engine::new(config.clone()).unwrap();
    let answer = parse_one(&engine.on_frame(at(1), &router_solicitation()));
    assert_eq!(answer.body[2..4], [0, 0], "no default route");
    let told: Vec<_> = options(&answer.body[12..]).into_iter().filter(|(kind, _)| *kind == 24).collect();
    let head = |bits: u8| [&[bits, 0][..], &1800_u32.to_be_bytes()].concat();
    let (net, host) = ([0xfd, 0x81, 0, 0, 0, 0, 0, 0], "fd81::1".parse::<Ipv6Addr>().unwrap().octets());
    let expected = [head(0), [&head(48)[..], &net].concat(), [&head(128)[..], &host].concat()];
    assert_eq!(told, expected.map(|value| (24, value)));
    config.v6.as_mut().unwrap().router = Router::None;
    let answer = parse_one(&Engine::new(config).unwrap().on_frame(at(1), &router_solicitation()));
    assert!(options(&answer.body[12..]).iter().all(|(kind, _)| *kind != 24), "there is no address to send it to");
}

#[test]
fn solicitations_that_break_the_rules_or_come_from_strangers_get_nothing() {
    let mut engine = engine(virtual_router());
    let mut far = router_solicitation();
    far[14 + 7] = 64;
    let link = Link { source: GUEST, destination: [0xff; 6] };
    let global = link.icmp6(GATEWAY_GLOBAL, ALL_ROUTERS, 133, &[0; 4]);
    let cut = link.icmp6(GUEST_LOCAL, ALL_ROUTERS, 133, &[0, 0, 0, 0, 1, 0]);
    for frame in [far, global, cut] {
        assert!(engine.on_frame(at(1), &frame).is_empty());
    }
    let stranger = Link { source: GATEWAY, ..link }.icmp6(GUEST_LOCAL, ALL_ROUTERS, 133, &[0; 4]);
    assert!(engine.on_frame(at(1), &stranger).is_empty());
    let seen = engine.snapshot();
    assert_eq!((seen.ignored.malformed, seen.ignored.not_our_client, seen.router_solicitations), (3, 1, 0));
}

#[test]
fn where_any_client_is_answered_advertisements_go_to_all_nodes() {
    let mut engine = Engine::new(Config { any_client: true, ..config(Router::None) }).unwrap();
    let link = Link { source: OTHER_GATEWAY, destination: [0xff; 6] };
    let answers = engine.on_frame(at(1), &link.icmp6(GUEST_LOCAL, ALL_ROUTERS, 133, &[0; 4]));
    assert_eq!(parse_one(&answers).mac, multicast_mac(ALL_NODES));
}

#[test]
fn advertisements_repeat_once_the_guest_was_heard() {
    let mut engine = engine(Router::None);
    assert_eq!(engine.next_deadline(), None);
    assert_eq!(engine.on_frame(at(100), &router_solicitation()).len(), 1);
    assert_eq!(engine.next_deadline(), Some(at(700)));
    assert!(engine.on_deadline(at(699)).is_empty());
    assert_eq!(parse_one(&engine.on_deadline(at(700))).kind, 134);
    assert_eq!(engine.next_deadline(), Some(at(1300)));
    assert_eq!(engine.snapshot().router_advertisements, 2);
}

#[test]
fn the_first_solicitation_resolves_the_gateway_and_is_answered() {
    let mut engine = engine(virtual_router());
    let question = parse_one(&engine.on_frame(at(10), &neighbour_solicitation(GUEST_LOCAL, VIRTUAL)));
    let group = solicited_node(GATEWAY_GLOBAL);
    assert_eq!((question.kind, question.from, question.to), (135, SERVICE_LOCAL, group));
    assert_eq!(question.mac, multicast_mac(group));
    assert_eq!(question.body[4..20], GATEWAY_GLOBAL.octets());
    assert_eq!(options(&question.body[20..]), [(1, GUEST.bytes().to_vec())]);
    assert_eq!(engine.snapshot().gateway, GatewayState::Resolving);

    let answer = parse_one(&engine.on_frame(at(10), &gateway_answers(GATEWAY, 0x40)));
    assert_eq!((answer.kind, answer.from, answer.to, answer.mac), (136, VIRTUAL, GUEST_LOCAL, GUEST.bytes()));
    assert_eq!(answer.body[0], 0xe0);
    assert_eq!(answer.body[4..20], VIRTUAL.octets());
    assert_eq!(options(&answer.body[20..]), [(2, GATEWAY.bytes().to_vec())]);
    assert_eq!(engine.snapshot().gateway, GatewayState::Reachable { mac: GATEWAY, confirmed_at: at(10) });
}

fn resolved_engine() -> Engine {
    let mut engine = engine(virtual_router());
    let _ = engine.on_frame(at(10), &neighbour_solicitation(GUEST_LOCAL, VIRTUAL));
    let _ = engine.on_frame(at(10), &gateway_answers(GATEWAY, 0x40));
    engine
}

#[test]
fn a_known_gateway_is_answered_at_once_and_checked_while_in_use() {
    let mut engine = resolved_engine();
    let answer = parse_one(&engine.on_frame(at(12), &neighbour_solicitation(GUEST_LOCAL, VIRTUAL)));
    assert_eq!(answer.kind, 136);
    assert_eq!(engine.next_deadline(), Some(at(40)));
    let check = parse_one(&engine.on_deadline(at(40)));
    assert_eq!((check.kind, check.to, check.mac), (135, GATEWAY_GLOBAL, GATEWAY.bytes()));
    assert!(engine.on_frame(at(40), &gateway_answers(GATEWAY, 0x40)).is_empty());
    for seconds in [70, 100] {
        assert_eq!(engine.next_deadline(), Some(at(seconds)));
        assert_eq!(engine.on_deadline(at(seconds)).len(), 1);
        let _ = engine.on_frame(at(seconds), &gateway_answers(GATEWAY, 0x40));
    }
    assert_eq!(engine.next_deadline(), Some(at(130)));
    assert_eq!(engine.on_deadline(at(130)).len(), 1);
    let _ = engine.on_frame(at(130), &gateway_answers(GATEWAY, 0x40));
    assert_eq!(engine.next_deadline(), None, "the guest has not asked for two minutes");
}

#[test]
fn a_guest_that_asks_again_has_its_answer_checked() {
    let mut engine = resolved_engine();
    let frames = engine.on_frame(at(15), &neighbour_solicitation(GUEST_LOCAL, VIRTUAL));
    let kinds: Vec<_> = frames.iter().map(|frame| (parse(frame).kind, parse(frame).mac)).collect();
    assert_eq!(kinds, [(136, GUEST.bytes()), (135, GATEWAY.bytes())]);
}

#[test]
fn a_gateway_that_moved_is_found_and_told_unasked() {
    let mut engine = resolved_engine();
    for seconds in [40, 41, 42] {
        assert_eq!(parse_one(&engine.on_deadline(at(seconds))).mac, GATEWAY.bytes());
    }
    let repeated = parse_one(&engine.on_deadline(at(43)));
    assert_eq!(repeated.mac, multicast_mac(solicited_node(GATEWAY_GLOBAL)));
    let told = parse_one(&engine.on_frame(at(43), &gateway_answers(OTHER_GATEWAY, 0x40)));
    assert_eq!((told.kind, told.to, told.body[0]), (136, ALL_NODES, 0xa0));
    assert_eq!(options(&told.body[20..]), [(2, OTHER_GATEWAY.bytes().to_vec())]);
}

#[test]
fn a_gateway_that_is_silent_is_unreachable_until_the_guest_asks_again() {
    let mut engine = engine(virtual_router());
    let _ = engine.on_frame(at(10), &neighbour_solicitation(GUEST_LOCAL, VIRTUAL));
    assert!(engine.on_frame(at(10), &neighbour_solicitation(GUEST_LOCAL, VIRTUAL)).is_empty());
    assert_eq!((engine.on_deadline(at(11)).len(), engine.on_deadline(at(12)).len()), (1, 1));
    assert!(engine.on_deadline(at(13)).is_empty());
    assert_eq!((engine.snapshot().gateway, engine.next_deadline()), (GatewayState::Unreachable, None));
    assert_eq!(parse_one(&engine.on_frame(at(14), &neighbour_solicitation(GUEST_LOCAL, VIRTUAL))).kind, 135);
}

#[test]
fn only_solicited_answers_of_the_gateway_are_believed() {
    let mut engine = engine(virtual_router());
    assert!(engine.on_frame(at(9), &gateway_answers(GATEWAY, 0x40)).is_empty());
    assert_eq!(engine.snapshot().gateway, GatewayState::Unused);
    let _ = engine.on_frame(at(10), &neighbour_solicitation(GUEST_LOCAL, VIRTUAL));
    assert!(engine.on_frame(at(10), &gateway_answers(GATEWAY, 0x20)).is_empty());
    let mut far = gateway_answers(GATEWAY, 0x40);
    far[14 + 7] = 254;
    assert!(engine.on_frame(at(10), &far).is_empty());
    let from_guest = gateway_answers(GUEST, 0x40);
    assert!(engine.on_frame(at(10), &from_guest).is_empty());
    assert_eq!(engine.snapshot().gateway, GatewayState::Resolving);
}

#[test]
fn questions_for_other_addresses_are_not_ours() {
    assert!(engine(virtual_router()).on_frame(at(1), &neighbour_solicitation(GUEST_LOCAL, GATEWAY_GLOBAL)).is_empty());
    assert!(engine(Router::None).on_frame(at(1), &neighbour_solicitation(GUEST_LOCAL, VIRTUAL)).is_empty());
}

#[test]
fn a_duplicate_check_for_the_virtual_router_is_answered_to_all() {
    let answer =
        parse_one(&resolved_engine().on_frame(at(12), &neighbour_solicitation(Ipv6Addr::UNSPECIFIED, VIRTUAL)));
    assert_eq!((answer.to, answer.body[0]), (ALL_NODES, 0xa0));
}

// spec: DHCP-16
#[test]
fn a_flood_is_answered_with_a_bound() {
    let mut engine = engine(Router::None);
    let answered = (0..1000).filter(|_| !engine.on_frame(at(1), &router_solicitation()).is_empty()).count();
    assert_eq!((answered, engine.snapshot().ignored.over_budget), (64, 936));
}

#[test]
fn refusals_name_the_field_and_its_value() {
    let refusal = |change: fn(&mut Config)| {
        let mut config = config(virtual_router());
        config.v4 = Some(V4Config {
            address: "10.0.2.2/24".parse().unwrap(),
            server_id: [10, 0, 2, 1].into(),
            ..V4Config::default()
        });
        change(&mut config);
        Engine::new(config).unwrap_err().to_string()
    };
    fn v4(config: &mut Config) -> &mut V4Config {
        config.v4.as_mut().unwrap()
    }
    type Change = fn(&mut Config);
    let cases: [(Change, &str); 6] = [
        (|c| c.hostname = Some("a\nb".into()), "hostname: \"a\\nb\" must be 1 to 255 printable ASCII characters"),
        (|c| v4(c).server_id = [10, 0, 2, 2].into(), "v4.server_id: 10.0.2.2 is the guest's own"),
        (|c| v4(c).private_options = vec![(223, vec![1])], "v4.private_options: option 223 is not from 224 to 254"),
        (|c| v4(c).lease = Lifetime::Seconds(0), "v4.lease: must be at least one second"),
        (|c| c.v6.as_mut().unwrap().address = VIRTUAL, "v6.address: fe80::7476:1 is no host's global address"),
        (|c| c.service_mac = GUEST, "service_mac: 02:00:00:00:00:07 is the guest's own"),
    ];
    for (change, message) in cases {
        assert_eq!(refusal(change), message);
    }
}
