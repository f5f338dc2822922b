//! Packets of no connection: none is passed on untranslated, and none ends a connection that lives.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use etherparse::PacketBuilder;
use libtest_mimic::Trial;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket};
use serde_json::json;
use tests::{FakeGuest, Outside, Tap, World, trial, wait_for};

use super::chain::{Chain, Stack, network, tapvisor, world};
use super::guest_limits::{V4, V6, counted};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: CNI-MASQ-5
        trial("segments of no connection never leave with the guest's address", from_guest),
        // spec: CNI-MASQ-5
        trial("a segment outside its connection's window is ignored", from_network),
    ]
}

const GUEST: [u8; 6] = [2, 0, 0, 0, 0, 0x42];
const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 0];
const PORT: u16 = 8080;
const PATIENCE: Duration = Duration::from_secs(60);

fn wired(world: &World) -> Chain<'_> {
    let ours = tapvisor(&json!([{"name": "default", "podInterface": "eth0", "binding": "masquerade"}]));
    let mut chain = Chain::new(world, "pod", &[network("ptp", Stack::Dual), ours]);
    chain.add();
    chain
}

/// Counts on the node, before its own connection tracking, what nft words describe.
fn watch(world: &World, words: &[&str]) {
    let chain = "add chain inet watch seen { type filter hook prerouting priority -400; }";
    world.run(&["nft", &format!("add table inet watch; {chain}")]).assert_ok();
    for word in words {
        world.run(&["nft", &format!("add rule inet watch seen {word} counter comment \"seen\"")]).assert_ok();
    }
}

fn dropped(chain: &Chain<'_>, from: &str) -> u64 {
    counted(chain.pod(), "inet tapvisor", &format!("eth0: of no connection, from the {from}"))
}

/// RST and FIN with ACK of unknown connections, in both families.
fn strays() -> Vec<Vec<u8>> {
    let v4 = [Ipv4Addr::new(10, 0, 2, 2), Outside::V4.parse().unwrap()].map(|address| address.octets());
    let v6: [Ipv6Addr; 2] = ["fd10:0:2::2", Outside::V6].map(|address| address.parse().unwrap());
    let v6 = v6.map(|address| address.octets());
    let mut frames = Vec::new();
    for is_reset in [true, false] {
        let ethernet = || PacketBuilder::ethernet2(GUEST, GATEWAY);
        for packet in [ethernet().ipv4(v4[0], v4[1], 64), ethernet().ipv6(v6[0], v6[1], 64)] {
            let segment = packet.tcp(5555, 80, 1000, 1024);
            let segment = if is_reset { segment.rst() } else { segment.fin().ack(2000) };
            let mut frame = Vec::new();
            segment.write(&mut frame, &[]).unwrap();
            frames.push(frame);
        }
    }
    frames
}

fn from_guest() {
    let world = world();
    let chain = wired(&world);
    watch(&world, &["ip saddr 10.0.2.0/24", "ip6 saddr fd10:0:2::/64"]);
    let tap = chain.pod().enter(|| Tap::attach("k6t-eth0", false));
    strays().iter().for_each(|frame| tap.send(frame));
    wait_for("all to be dropped and counted", PATIENCE, || (dropped(&chain, "guest") == 4).then_some(()));
    assert_eq!(counted(&world.named("pod"), "inet tapvisor", "eth0: outbound V4"), 0);
    let seen = world.run(&["nft", "list", "table", "inet", "watch"]).text();
    assert_eq!(seen.matches("packets 0 bytes 0").count(), 2, "{seen}");
}

/// Acknowledgements for the connection between two sockets that are far from what either has sent. Of two sequence numbers half
/// the circle apart one is above the window; below it, conntrack takes a segment for a late one and lets the guest answer.
fn inject(world: &World, from: SocketAddr, to: SocketAddr) {
    let ip = || match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        families => panic!("two families: {families:?}"),
    };
    let packets = [0x0101_0101, 0x8101_0101].map(|sequence| {
        let mut packet = Vec::new();
        let segment = ip().tcp(from.port(), to.port(), sequence, 1024).ack(0x0202_0202);
        segment.write(&mut packet, b"stray").unwrap();
        packet
    });
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    world.enter(|| {
        let raw = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw).expect("root may");
        // Raw IPv6 sockets take no port.
        let to = SockaddrStorage::from(SocketAddr::new(to.ip(), 0));
        for packet in &packets {
            sendto(raw.as_raw_fd(), packet, &to, MsgFlags::empty()).expect("the pod is reachable");
        }
    });
}

fn from_network() {
    let world = world();
    let chain = wired(&world);
    let guest = FakeGuest::plug(&world, "guest", chain.pod(), "k6t-eth0", "02:00:00:00:00:42");
    guest.ns().sh(&format!("{V4}; {V6}")).assert_ok();
    watch(&world, &["tcp flags & rst == rst"]);
    let listener = guest.ns().enter(|| TcpListener::bind(("::", PORT)).unwrap());
    for version in [4, 6] {
        let pod = SocketAddr::new(chain.address(version).unwrap(), PORT);
        let here = world.enter(|| TcpStream::connect_timeout(&pod, PATIENCE).unwrap());
        let (mut there, _) = listener.accept().unwrap();
        there.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut passes = |mut from: &TcpStream, word: &[u8; 5]| {
            from.write_all(word).unwrap();
            let mut heard = [0; 5];
            there.read_exact(&mut heard).unwrap();
            assert_eq!(heard, *word);
        };
        passes(&here, b"first");
        let before = dropped(&chain, "network");
        inject(&world, here.local_addr().unwrap(), pod);
        wait_for("the stray segment to be dropped", PATIENCE, || (dropped(&chain, "network") > before).then_some(()));
        passes(&here, b"after");
    }
    let seen = world.run(&["nft", "list", "table", "inet", "watch"]).text();
    assert!(seen.contains("packets 0 bytes 0"), "the pod answered: {seen}");
}
