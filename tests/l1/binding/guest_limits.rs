//! What a masquerade guest cannot do, which ports reach it, and several NICs in one pod.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{FakeGuest, Ns, Snapshot, Tap, World, exchange, trial};

use super::chain::{Chain, Stack, network, tapvisor, world};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: CNI-GUARD-1
        trial("a masquerade guest's foreign sources do not leave the pod", foreign_sources),
        trial("a masquerade guest does not reach the pod's loopback", pod_loopback),
        trial("a masquerade guest's rogue answers and advertisements stay in the pod", rogue_servers),
        // spec: CNI-MASQ-2
        trial("only declared ports reach the guest, the pod counts the rest", declared_ports),
        // spec: CNI-MASQ-3
        trial("with Istio only SSH and what the side-car hands on reach the guest", istio),
        trial("two masquerade NICs of one pod share settings and tables", two_nics),
        trial("a masquerade NIC and a bridge-bound one work in one pod", masquerade_and_bridge),
    ]
}

pub(super) const V4: &str = "ip addr add 10.0.2.2/24 dev eth0; ip route add default via 10.0.2.1";
pub(super) const V6: &str =
    "ip addr add fd10:0:2::2/120 dev eth0 nodad; ip -6 route add default via fe80::ff:fe00:0 dev eth0";

fn wired<'w>(world: &'w World, name: &str, more: &Value) -> Chain<'w> {
    let mut interface = json!({"name": "default", "podInterface": "eth0", "binding": "masquerade"});
    for (key, value) in more.as_object().expect("an object") {
        interface[key] = value.clone();
    }
    let mut chain = Chain::new(world, name, &[network("bridge", Stack::Dual), tapvisor(&json!([interface]))]);
    chain.add();
    chain
}

fn guest<'w>(world: &'w World, chain: &Chain<'_>, name: &str) -> FakeGuest<'w> {
    let guest = FakeGuest::plug(world, name, chain.pod(), "k6t-eth0", "02:00:00:00:00:42");
    guest.ns().sh(&format!("{V4}; {V6}")).assert_ok();
    guest
}

/// Packets that a rule of that name saw.
pub(super) fn counted(pod: &Ns<'_>, table: &str, name: &str) -> u64 {
    let (family, table) = table.split_once(' ').expect("family and name");
    let listing = pod.run(&["nft", "-j", "list", "table", family, table]).json();
    let rules = listing["nftables"].as_array().expect("a listing").iter().filter_map(|entry| entry.get("rule"));
    let named = rules.filter(|rule| rule["comment"] == name);
    let expressions = named.flat_map(|rule| rule["expr"].as_array().cloned().unwrap_or_default());
    expressions.filter_map(|expression| expression["counter"]["packets"].as_u64()).sum()
}

/// A counter of the node for what nft words describe, before anything of the node's own touches it.
fn watch(world: &World, words: &[&str]) {
    world
        .sh("nft add table inet watch; nft add chain inet watch seen '{ type filter hook prerouting priority -400; }'")
        .assert_ok();
    for word in words {
        world
            .run(&["nft", &format!("add rule inet watch seen iifname cni0 {word} counter comment \"watched\"")])
            .assert_ok();
    }
}

fn watched(world: &World) -> u64 {
    let listing = world.run(&["nft", "-j", "list", "table", "inet", "watch"]).json();
    let rules = listing["nftables"].as_array().expect("a listing").iter().filter_map(|entry| entry.get("rule"));
    let expressions = rules.flat_map(|rule| rule["expr"].as_array().cloned().unwrap_or_default());
    expressions.filter_map(|expression| expression["counter"]["packets"].as_u64()).sum()
}

fn foreign_sources() {
    let world = world();
    let chain = wired(&world, "pod", &json!({}));
    let guest = guest(&world, &chain, "guest");
    let foreign = ["10.0.2.50", "10.244.1.77", "203.0.113.9", "fd10:0:2::50", "fd00:10:244:1::77"];
    watch(
        &world,
        &["ip saddr { 10.0.2.0/24, 10.244.1.77, 203.0.113.9 }", "ip6 saddr { fd10:0:2::/64, fd00:10:244:1::77 }"],
    );
    for source in foreign {
        let length = if source.contains(':') { 128 } else { 32 };
        let target = if source.contains(':') { "fd00:10:244:1::1" } else { "10.244.1.1" };
        let nodad = if source.contains(':') { "nodad" } else { "" };
        guest.ns().sh(&format!("ip addr add {source}/{length} dev eth0 {nodad}")).assert_ok();
        let ran = guest.ns().run(&["ping", "-c", "2", "-i", "0.2", "-W", "1", "-I", source, target]);
        assert!(!ran.is_ok(), "{}", ran.account());
        guest.ns().sh(&format!("ip addr del {source}/{length} dev eth0; ip neigh flush dev eth0")).assert_ok();
    }
    assert_eq!(watched(&world), 0, "foreign sources were seen outside the pod");
    // A source that is not the guest's already fails to ask for the gateway's Ethernet address.
    let dropped = counted(chain.pod(), "arp tapvisor", "eth0: ARP not from the guest's address")
        + counted(chain.pod(), "inet tapvisor", "eth0: not from the guest's IPv4 address")
        + counted(chain.pod(), "inet tapvisor", "eth0: not from the guest's IPv6 addresses");
    assert!(dropped >= foreign.len() as u64, "{dropped} packets were dropped");
    for target in ["10.244.1.1", "fd00:10:244:1::1"] {
        guest.ns().run(&["ping", "-c", "1", "-W", "20", target]).assert_ok();
    }
}

fn pod_loopback() {
    let world = world();
    let chain = wired(&world, "pod", &json!({"ports": [{"port": 9}]}));
    let guest = guest(&world, &chain, "guest");
    let listeners =
        chain.pod().enter(|| ["127.0.0.1:7777", "[::1]:7777"].map(|at| TcpListener::bind(at).expect("a port")));
    guest.ns().sh("ip link set lo down; ip route add 127.0.0.0/8 via 10.0.2.1; ip addr del 127.0.0.1/8 dev lo || true; sysctl -qw net.ipv4.conf.eth0.route_localnet=1; ip route del local 127.0.0.0/8 table local || true; ip route del local 127.0.0.1 table local || true; ip -6 route del local ::1 table local || true; ip -6 route add ::1 via fe80::ff:fe00:0 dev eth0").assert_ok();
    for target in ["127.0.0.1:7777", "[::1]:7777"] {
        let target: SocketAddr = target.parse().unwrap();
        let reached = guest.ns().enter(|| TcpStream::connect_timeout(&target, Duration::from_secs(1)).is_ok());
        assert!(!reached, "the guest reached {target} of the pod");
    }
    assert!(
        counted(chain.pod(), "inet tapvisor", "eth0: to 127.0.0.0/8") > 0,
        "the guest's packets came as far as the guard"
    );
    drop(listeners);
}

fn rogue_servers() {
    let world = world();
    let chain = wired(&world, "pod", &json!({}));
    let guest = FakeGuest::plug(&world, "guest", chain.pod(), "k6t-eth0", "02:00:00:00:00:42");
    guest.ns().sh(&format!("{V4}; {V6}; ip addr add fe80::42/64 dev eth0 nodad")).assert_ok();
    let before = chain.pod().run(&["bash", "-c", "ip -6 route; ip -6 addr show eth0; ip -6 addr show k6t-eth0"]).text();
    watch(&world, &["udp dport { 67, 68, 546, 547 }", "icmpv6 type { 133, 134 }"]);
    let offers = "import socket
for family, to in ((socket.AF_INET, ('255.255.255.255', 68)), (socket.AF_INET, ('255.255.255.255', 67)), (socket.AF_INET6, ('ff02::1:2', 547, 0, socket.if_nametoindex('eth0')))):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'eth0')
    s.sendto(b'a rogue offer', to)
import struct
r = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
r.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
prefix = struct.pack('!BBBBIII16s', 3, 4, 64, 0xc0, 9000, 9000, 0, socket.inet_pton(socket.AF_INET6, '2001:db8:bad::'))
r.sendto(struct.pack('!BBHBBHII', 134, 0, 0, 64, 0, 9000, 0, 0) + prefix, ('ff02::1', 0, 0, socket.if_nametoindex('eth0')))";
    guest.ns().run(&["python3", "-c", offers]).assert_ok();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(watched(&world), 0, "the pod network saw the guest's offers");
    let after = chain.pod().run(&["bash", "-c", "ip -6 route; ip -6 addr show eth0; ip -6 addr show k6t-eth0"]).text();
    assert_eq!(before, after, "the pod took an address or a route from its guest");
}

/// Whether a TCP port answers, and who: a listener's greeting, or the kernel's refusal.
fn reaches(client: &Ns<'_>, address: IpAddr, port: u16) -> Result<(), ErrorKind> {
    let target = SocketAddr::new(address, port);
    client
        .enter(|| TcpStream::connect_timeout(&target, Duration::from_secs(30)).map(drop).map_err(|error| error.kind()))
}

fn listen(ns: &Ns<'_>, port: u16) -> TcpListener {
    ns.enter(|| TcpListener::bind(SocketAddr::new(IpAddr::from([0_u16; 8]), port)).expect("a port is free"))
}

fn declared_ports() {
    let world = world();
    let mut peer = Chain::new(&world, "peer", &[network("bridge", Stack::Dual)]);
    peer.add();
    let ports = json!([{"port": 80}, {"protocol": "UDP", "port": 53}, {"protocol": "SCTP", "port": 9}]);
    let chain = wired(&world, "pod", &json!({"ports": ports}));
    let guest = guest(&world, &chain, "guest");
    let listeners = [listen(guest.ns(), 80), listen(guest.ns(), 81)];
    for version in [4, 6] {
        let pod = chain.address(version).expect("an address");
        assert_eq!(reaches(peer.pod(), pod, 80), Ok(()));
        assert_eq!(reaches(peer.pod(), pod, 81), Err(ErrorKind::ConnectionRefused), "refused by the pod, not dropped");
        peer.pod().run(&["ping", "-c", "1", "-W", "20", &pod.to_string()]).assert_ok();
        let loopback: IpAddr = if version == 4 { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
        assert_eq!(reaches(chain.pod(), loopback, 80), Ok(()));
        assert_eq!(reaches(chain.pod(), loopback, 81), Err(ErrorKind::ConnectionRefused));
        let name = format!("eth0: undeclared V{version}");
        assert_eq!(counted(chain.pod(), "inet tapvisor", &name), 1, "{name}");
        let ping = format!("eth0: ping V{version}");
        assert_eq!(counted(chain.pod(), "inet tapvisor", &ping), 1, "{ping}");
        let echo = guest.ns().enter(|| UdpSocket::bind(SocketAddr::new(IpAddr::from([0_u16; 8]), 53)).expect("a port"));
        echo.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
        peer.pod().enter(|| {
            let any = if version == 4 { "0.0.0.0:0" } else { "[::]:0" };
            UdpSocket::bind(any)
                .expect("a port")
                .send_to(b"x", SocketAddr::new(pod, 53))
                .expect("a datagram can be sent")
        });
        assert_eq!(echo.recv(&mut [0; 8]).expect("the datagram reaches the guest"), 1);
    }
    drop(listeners);
}

fn istio() {
    let world = world();
    let mut peer = Chain::new(&world, "peer", &[network("bridge", Stack::Dual)]);
    peer.add();
    let chain = wired(&world, "pod", &json!({"mesh": "istio"}));
    let guest = guest(&world, &chain, "guest");
    let listeners =
        [listen(guest.ns(), 22), listen(guest.ns(), 80), listen(guest.ns(), 15001), listen(chain.pod(), 15001)];
    for version in [4, 6] {
        let pod = chain.address(version).expect("an address");
        assert_eq!(reaches(peer.pod(), pod, 22), Ok(()), "SSH goes to the guest");
        assert_eq!(reaches(peer.pod(), pod, 80), Err(ErrorKind::ConnectionRefused), "the side-car would take it");
        let loopback: IpAddr = if version == 4 { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
        assert_eq!(reaches(chain.pod(), loopback, 80), Ok(()), "what the side-car hands on over loopback");
        assert_eq!(reaches(chain.pod(), pod, 80), Ok(()), "what the side-car hands on to the pod's address");
        let before = counted(chain.pod(), "inet tapvisor", &format!("eth0: from the side-car V{version}"));
        assert_eq!(reaches(chain.pod(), loopback, 15001), Ok(()), "the side-car's own port");
        assert_eq!(counted(chain.pod(), "inet tapvisor", &format!("eth0: from the side-car V{version}")), before);
    }
    // The side-car sends from 127.0.0.6 what it took in.
    let from_side_car = chain.pod().run(&[
        "python3",
        "-c",
        "import socket; socket.create_connection(('127.0.0.1', 80), 30, ('127.0.0.6', 0))",
    ]);
    from_side_car.assert_ok();
    chain.check();
    drop(listeners);
}

fn two_nics() {
    let world = world();
    let mut peer = Chain::new(&world, "peer", &[network("bridge", Stack::Dual)]);
    peer.add();
    let (chain, second, before) = wired_twice(
        &world,
        &json!({"name": "second", "podInterface": "net1", "binding": "masquerade", "cidr": "10.0.3.0/24", "cidr6": "fd10:0:3::/120"}),
    );
    let guest = guest(&world, &chain, "guest");
    let other = FakeGuest::plug(&world, "other", chain.pod(), "k6t-net1", "02:00:00:00:00:43");
    other.ns().sh("ip addr add 10.0.3.2/24 dev eth0; ip route add default via 10.0.3.1").assert_ok();
    let client = peer.address(4).expect("an address");
    assert_eq!(exchange(guest.ns(), peer.pod(), chain.address(4).expect("an address"), 100_000), client);
    // The node itself is on the second network.
    let ping = ["ping", "-c", "1", "-W", "20", &second.address(4).expect("an address").to_string()];
    world.run(&ping).assert_ok();
    assert!(counted(chain.pod(), "inet tapvisor", "net1: inbound V4") > 0);
    drop((guest, other));
    chain.call("DEL", 1, chain.result.as_ref()).assert_ok();
    before.assert_same(&chain.pod().snapshot());
}

/// A pod with two networks, the first masqueraded and the second wired by `second_nic`; also returns the second attachment and
/// a snapshot from before the wiring.
fn wired_twice<'w>(world: &'w World, second_nic: &Value) -> (Chain<'w>, Chain<'w>, Snapshot) {
    let mut chain = Chain::new(world, "pod", &[network("bridge", Stack::Dual)]);
    chain.add();
    let ipam = json!({"type": "host-local", "ranges": [[{"subnet": "10.245.1.0/24"}]]});
    let network = json!({"type": "bridge", "bridge": "cni1", "isGateway": true, "ipam": ipam});
    let mut second = chain.second_attachment("net1", &[network]);
    second.add();
    chain.settle();
    let before = chain.pod().snapshot();
    let first = json!({"name": "default", "podInterface": "eth0", "binding": "masquerade"});
    chain.plugins.push(tapvisor(&json!([first, second_nic])));
    chain.call("ADD", 1, chain.result.as_ref()).assert_ok();
    chain.check();
    (chain, second, before)
}

fn masquerade_and_bridge() {
    let world = world();
    let (chain, second, before) =
        wired_twice(&world, &json!({"name": "second", "podInterface": "net1", "binding": "bridge"}));
    second.check();
    let guest = guest(&world, &chain, "guest");
    let mac = chain.pod().run(&["ip", "-j", "link", "show", "net1"]).json()[0]["address"].as_str().unwrap().to_owned();
    let other = FakeGuest::plug(&world, "other", chain.pod(), "tap-net1", &mac);
    let address = second.address(4).expect("an address");
    other.ns().sh(&format!("ip addr add {address}/24 dev eth0")).assert_ok();
    world.run(&["ping", "-c", "1", "-W", "20", &address.to_string()]).assert_ok();
    guest.ns().run(&["ping", "-c", "1", "-W", "20", "10.244.1.1"]).assert_ok();
    // By way of the pod the masqueraded guest must not appear on the interface that is another guest's.
    let ran = guest.ns().run(&["ping", "-c", "1", "-W", "1", "10.245.1.1"]);
    assert!(!ran.is_ok(), "{}", ran.account());
    let service = chain.pod().enter(|| Tap::attach("svc-net1", false));
    assert!(service.receive(100).is_none(), "no unsolicited frame reaches the launcher");
    drop((guest, other, service));
    chain.call("DEL", 1, chain.result.as_ref()).assert_ok();
    before.assert_same(&chain.pod().snapshot());
}
