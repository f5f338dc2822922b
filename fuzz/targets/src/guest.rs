//! The one guest of the DHCP targets: its engine, its frames, and what holds for every frame it is sent.

use std::net::Ipv6Addr;
use std::path::Path;
use std::time::Duration;

use dhcp::{Config, Engine, Frame, Lifetime, Prefix, Router, V4Config, V6Config};
use etherparse::{Icmpv6Slice, Ipv6Header, NetHeaders, PacketBuilderStep, PacketHeaders, TransportHeader, UdpHeader};
use terms::MacAddr;

pub(crate) const GUEST: MacAddr = MacAddr::local([0, 0, 0, 0, 7]);
pub(crate) const SERVICE: MacAddr = MacAddr::local([0, 0, 0, 0, 8]);
pub(crate) const GATEWAY: MacAddr = MacAddr::local([0, 0, 0, 0, 1]);
pub(crate) const GUEST_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7);
pub(crate) const ADDRESS: [u8; 4] = [10, 0, 2, 2];
pub(crate) const SERVER: [u8; 4] = [10, 0, 2, 1];
pub(crate) const ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfd10, 0, 2, 0, 0, 0, 0, 2);
pub(crate) const VIRTUAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x7476, 1);
pub(crate) const GATEWAY_GLOBAL: Ipv6Addr = Ipv6Addr::new(0xfd10, 0, 2, 0, 0, 0, 0, 1);
pub(crate) const LEASE_SECONDS: u32 = 4000;
pub(crate) const MTU: usize = 1500;
const ETHERNET_BYTES: usize = 14;

/// A datagram on the wire.
pub(crate) fn udp(headers: PacketBuilderStep<UdpHeader>, payload: &[u8]) -> Frame {
    let mut frame = Vec::with_capacity(headers.size(payload.len()));
    headers.write(&mut frame, payload).expect("a buffer can be written");
    frame
}

/// An engine that serves all it can; with `much` it has more to say than fits into one packet.
pub(crate) fn engine(much: bool) -> Engine {
    let mut config = Config::new(GUEST, SERVICE);
    config.mtu = Some(terms::Mtu::try_from(MTU as u64).expect("1500 is an MTU"));
    config.hostname = Some("guest".into());
    config.dns = vec![[10, 96, 0, 10].into(), GATEWAY_GLOBAL.into()];
    config.search = vec!["svc.cluster.local".parse().expect("a name")];
    let mut v4 = V4Config {
        address: "10.0.2.2/24".parse().expect("an address"),
        server_id: SERVER.into(),
        router: Some(SERVER.into()),
        lease: Lifetime::Seconds(LEASE_SECONDS),
        ..V4Config::default()
    };
    if much {
        config.hostname = Some("h".repeat(200));
        config.search = (0..32).map(|n| format!("{}{n}.example", "s".repeat(50)).parse().expect("a name")).collect();
        v4.routes = (0..200).map(|n| (format!("10.{n}.0.0/16").parse().expect("a network"), SERVER.into())).collect();
        v4.boot_file = Some("file".into());
        v4.private_options = (224..=254).map(|code| (code, vec![code; 255])).collect();
    }
    config.v4 = Some(v4);
    config.v6 = Some(V6Config {
        address: ADDRESS6,
        preferred: Lifetime::Seconds(LEASE_SECONDS),
        valid: Lifetime::Seconds(LEASE_SECONDS),
        router: Router::Virtual { link_local: VIRTUAL, gateway: GATEWAY_GLOBAL },
        router_lifetime_seconds: 1800,
        prefixes: vec![Prefix { network: "fd10:0:2::/120".parse().expect("a network"), on_link: true }],
        routes: if much { vec!["fd81::/48".parse().expect("a network"); 16] } else { Vec::new() },
        boot_file_url: much.then(|| "u".repeat(255)),
    });
    Engine::new(config).expect("the configuration is sound")
}

/// Cuts an input into records: two bytes of length, and so many bytes or as many as there are.
pub(crate) fn records(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = input;
    std::iter::from_fn(move || {
        let (head, tail) = rest.split_at_checked(2)?;
        let length = usize::from(u16::from_be_bytes([head[0], head[1]])).min(tail.len());
        let (record, tail) = tail.split_at(length);
        rest = tail;
        Some(record)
    })
    .take(100)
}

/// Writes records the way [`records`] reads them.
pub(crate) fn in_records(head: &[u8], records: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut input = head.to_vec();
    for record in records {
        input.extend(u16::try_from(record.len()).unwrap_or(u16::MAX).to_be_bytes());
        input.extend(record);
    }
    input
}

/// The frames of each recorded client.
pub(crate) fn captures() -> Vec<Vec<Frame>> {
    let folder = crate::inputs::folder().join("../dhcp/captures");
    let Ok(files) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = files.flatten().map(|file| file.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "hex"));
    paths.sort();
    paths.iter().map(|path| frames(path)).collect()
}

fn frames(path: &Path) -> Vec<Frame> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(crate::inputs::bytes).collect()
}

/// A frame that the engine sent.
#[derive(Debug)]
pub(crate) struct Sent<'a> {
    pub(crate) destination: [u8; 6],
    pub(crate) source: [u8; 6],
    pub(crate) content: Content<'a>,
}

/// What it holds.
#[derive(Debug)]
pub(crate) enum Content<'a> {
    Udp4 { from: u16, to: u16, payload: &'a [u8] },
    Udp6 { from: u16, to: u16, payload: &'a [u8] },
    Icmp6 { header: Ipv6Header, kind: u8, body: &'a [u8] },
}

/// Reads an answer with other projects' code; panics when it is not one complete, valid frame within the MTU.
pub(crate) fn read(frame: &[u8]) -> Sent<'_> {
    assert!(frame.len() <= ETHERNET_BYTES + MTU, "{} bytes", frame.len());
    let packet = PacketHeaders::from_ethernet_slice(frame).expect("a whole frame");
    let Some(etherparse::LinkHeader::Ethernet2(ethernet)) = packet.link else { panic!("no Ethernet header") };
    let payload = packet.payload.slice();
    let content = match (packet.net, packet.transport) {
        (Some(NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Udp(udp))) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            let right = udp.calc_checksum_ipv4(&ip, payload).expect("short enough");
            assert!(udp.checksum == right || udp.checksum == 0, "checksum of UDP");
            Content::Udp4 { from: udp.source_port, to: udp.destination_port, payload }
        }
        (Some(NetHeaders::Ipv6(ip, _)), Some(TransportHeader::Udp(udp))) => {
            assert_eq!(udp.checksum, udp.calc_checksum_ipv6(&ip, payload).expect("short enough"));
            Content::Udp6 { from: udp.source_port, to: udp.destination_port, payload }
        }
        (Some(NetHeaders::Ipv6(header, _)), Some(TransportHeader::Icmpv6(_))) => {
            let message = &frame[ETHERNET_BYTES + Ipv6Header::LEN..];
            let slice = Icmpv6Slice::from_slice(message).expect("a whole message");
            assert!(slice.is_checksum_valid(header.source, header.destination), "checksum of ICMPv6");
            assert_eq!(slice.code_u8(), 0);
            Content::Icmp6 { header, kind: slice.type_u8(), body: &message[4..] }
        }
        other => panic!("neither UDP nor ICMPv6: {other:?}"),
    };
    Sent { destination: ethernet.destination, source: ethernet.source, content }
}

/// The clock of a target: one second a record.
pub(crate) fn second(number: u64) -> Duration {
    Duration::from_secs(number + 1)
}
