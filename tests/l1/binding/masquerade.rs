//! Masquerade: traffic every way, and nothing of it left afterwards.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::json;
use tests::{FakeGuest, Outside, World, exchange, trial};

use super::chain::{Chain, Stack, network, tapvisor, world};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: CNI-MASQ-1
        trial("masquerade carries traffic every way after bridge, dual-stack", || every_way("bridge", Stack::Dual)),
        trial("masquerade carries traffic every way after bridge, IPv4 only", || every_way("bridge", Stack::V4)),
        // spec: CNI-MASQ-1
        trial("masquerade carries traffic every way after bridge, IPv6 only", || every_way("bridge", Stack::V6)),
        trial("masquerade carries traffic every way after ptp, dual-stack", || every_way("ptp", Stack::Dual)),
        // spec: CNI-MASQ-1
        trial("masquerade carries traffic every way after ptp, IPv4 only", || every_way("ptp", Stack::V4)),
        // spec: CNI-MASQ-1
        trial("masquerade carries traffic every way after ptp, IPv6 only", || every_way("ptp", Stack::V6)),
        // spec: CNI-MASQ-1
        trial("masquerade carries traffic every way after macvlan, dual-stack", || every_way("macvlan", Stack::Dual)),
        trial("masquerade carries traffic every way after macvlan, IPv4 only", || every_way("macvlan", Stack::V4)),
        // spec: CNI-MASQ-1
        trial("masquerade carries traffic every way after macvlan, IPv6 only", || every_way("macvlan", Stack::V6)),
    ]
}

const BYTES: usize = 2_000_000;
const GUEST_MAC: &str = "02:00:00:00:00:42";

/// What DHCP and router advertisements would tell the guest.
fn configure(guest: &FakeGuest<'_>, stack: Stack) {
    let v4 = "ip addr add 10.0.2.2/24 dev eth0; ip route add default via 10.0.2.1";
    let v6 = "ip addr add fd10:0:2::2/120 dev eth0 nodad; ip -6 route add default via fe80::ff:fe00:0 dev eth0";
    for version in stack.versions() {
        guest.ns().sh(if *version == 4 { v4 } else { v6 }).assert_ok();
    }
}

fn every_way(kind: &str, stack: Stack) {
    let world = world();
    let mut peer = Chain::new(&world, "peer", &[network(kind, stack)]);
    peer.add();
    let mut chain = Chain::new(&world, "pod", &[network(kind, stack)]);
    chain.add();
    chain.settle();
    let before = chain.pod().snapshot();
    chain.plugins.push(tapvisor(&json!([{"name": "default", "podInterface": "eth0", "binding": "masquerade"}])));
    let passed_on = chain.result.clone();
    let answer = chain.call("ADD", 1, chain.result.as_ref()).json();
    assert_eq!(Some(answer), passed_on, "the previous result goes on unchanged");
    chain.check();

    let guest = FakeGuest::plug(&world, "guest", chain.pod(), "k6t-eth0", GUEST_MAC);
    configure(&guest, stack);
    for version in stack.versions() {
        let pod = chain.address(*version).expect("the pod has an address");
        let other = peer.address(*version).expect("the peer has an address");
        assert_eq!(exchange(guest.ns(), peer.pod(), pod, BYTES), other, "the guest sees who asks");
        assert_eq!(exchange(peer.pod(), guest.ns(), other, BYTES), pod, "the peer sees the pod");
        let (loopback, gateway): (IpAddr, IpAddr) = match version {
            4 => ("127.0.0.1".parse().unwrap(), "10.0.2.1".parse().unwrap()),
            _ => ("::1".parse().unwrap(), "fd10:0:2::1".parse().unwrap()),
        };
        assert_eq!(
            exchange(guest.ns(), chain.pod(), loopback, BYTES),
            gateway,
            "the pod's loopback leads to the guest"
        );
        assert_eq!(exchange(guest.ns(), guest.ns(), pod, BYTES), gateway, "the guest reaches itself as the pod");
        peer.pod().run(&["ping", "-c", "1", "-W", "20", &pod.to_string()]).assert_ok();
        outside_sees(&world, &guest, *version, pod);
    }
    chain.check();
    drop(guest);
    chain.call("DEL", 1, chain.result.as_ref()).assert_ok();
    before.assert_same(&chain.pod().snapshot());
    chain.plugins.pop();
    chain.check();
    chain.del();
}

fn outside_sees(world: &World, guest: &FakeGuest<'_>, version: u8, pod: IpAddr) {
    world.outside().route_to_host(world, if version == 4 { "10.244.1.0/24" } else { "fd00:10:244:1::/64" });
    world
        .sh("sysctl -qw net.ipv6.conf.uplink0.accept_ra=2 net.ipv6.conf.all.forwarding=1 net.ipv4.ip_forward=1")
        .assert_ok();
    let host: IpAddr = if version == 4 { Outside::V4 } else { Outside::V6 }.parse().unwrap();
    let page = guest.ns().enter(|| fetch(host));
    assert!(page.ends_with(&format!("outside sees {pod}\n")), "{page}");
}

fn fetch(host: IpAddr) -> String {
    let limit = Duration::from_secs(60);
    let mut stream = TcpStream::connect_timeout(&(host, 80).into(), limit).unwrap_or_else(|e| panic!("no {host}: {e}"));
    stream.set_read_timeout(Some(limit)).expect("a limit that is not zero");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("a request can be sent");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("an answer comes");
    page
}
