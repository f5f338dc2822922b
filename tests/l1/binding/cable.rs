//! Bridge binding is transparent: all frames between guest and network pass, except the guest's own DHCP.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use etherparse::{PacketBuilder, PacketBuilderStep, VlanId};
use libtest_mimic::Trial;
use serde_json::json;
use tests::{Tap, trial, wait_for};

use super::bridge::{arrives, arrives_soon, attached, icmpv6_type, mac_of, request, watch, watched, wired};
use super::chain::{Chain, Stack, network, world};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: CNI-BRIDGE-2
        trial("a bridge-bound guest's VLAN and relayed DHCP go to the network", others_dhcp),
        // spec: CNI-BRIDGE-2
        trial("a guest on a macvlan gets all multicast, and DEL restores the NIC", multicast),
    ]
}

const TAG: u16 = 7;
const GUEST_V4: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 2);
const NETWORK_V4: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 1);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x42);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

type Headers = PacketBuilderStep<etherparse::IpHeaders>;

fn udp(headers: Headers, from: u16, to: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    headers.udp(from, to).write(&mut frame, b"a question").unwrap();
    frame
}

fn icmpv6(headers: Headers, kind: u8) -> Vec<u8> {
    let mut frame = Vec::new();
    headers.icmpv6_raw(kind, 0, [0; 4]).write(&mut frame, &[0; 8]).unwrap();
    frame
}

fn others_dhcp() {
    let world = world();
    let chain = wired(&world, "bridge", Stack::Dual, &json!({}));
    let mac: terms::MacAddr = mac_of(chain.pod(), "eth0").parse().unwrap();
    watch(&world, "bridge", "prerouting", &format!("ether saddr {mac}"));
    let (guest, service) = (attached(chain.pod(), "tap0"), attached(chain.pod(), "svc-eth0"));
    let from_guest = |to| PacketBuilder::ethernet2(mac.bytes(), to);
    let tagged = |to| from_guest(to).single_vlan(VlanId::try_new(TAG).unwrap());
    let v4 = |from: Ipv4Addr, to: Ipv4Addr| (from.octets(), to.octets());
    let (unspecified, broadcast) = v4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
    let (own, network) = v4(GUEST_V4, NETWORK_V4);
    let local = LINK_LOCAL.octets();
    let server: Ipv6Addr = "fd00:10:244:1::1".parse().unwrap();

    let passed = [
        udp(tagged([0xff; 6]).ipv4(unspecified, broadcast, 64), 68, 67),
        icmpv6(tagged([0x33, 0x33, 0, 0, 0, 2]).ipv6(local, ALL_ROUTERS.octets(), 255), 133),
        udp(from_guest([0xff; 6]).ipv4(own, network, 64), 67, 67),
        udp(from_guest([0xff; 6]).ipv6(local, server.octets(), 64), 547, 547),
    ];
    passed.iter().for_each(|frame| guest.send(frame));
    let all = || (watched(&world, "bridge") == passed.len() as u64).then_some(());
    wait_for("the network to see all", Duration::from_secs(60), all);
    assert!(!arrives_soon(&service, |_| true), "the launcher got what is not for it");

    let asked = udp(from_guest([0xff; 6]).ipv4(unspecified, broadcast, 64), 68, 67);
    let renewed = udp(from_guest([0xff; 6]).ipv4(own, network, 64), 68, 67);
    for question in [asked, renewed] {
        guest.send(&question);
        assert!(arrives(&service, |frame| frame == question), "a question of the guest's own");
    }
    assert_eq!(watched(&world, "bridge"), passed.len() as u64, "the network saw a question of the guest's own");

    // Another router, in the guest's VLAN.
    let router = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [0x33, 0x33, 0, 0, 0, 1]);
    let headers = router.single_vlan(VlanId::try_new(TAG).unwrap()).ipv6(local, ALL_NODES.octets(), 255);
    let hex: String = icmpv6(headers, 134).iter().map(|byte| format!("{byte:02x}")).collect();
    let send = format!(
        "import socket
s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW)
s.bind(('cni0',0))
s.send(bytes.fromhex('{hex}'))"
    );
    world.run(&["python3", "-c", &send]).assert_ok();
    let is_tagged_advertisement =
        |frame: &[u8]| frame.get(12..16) == Some(&[0x81, 0, 0, 7]) && frame.get(58) == Some(&134);
    assert!(arrives(&guest, is_tagged_advertisement), "the router advertisement of a VLAN reaches the guest");
}

/// What a guest hears that has joined groups of its own and holds an address that the pod has not.
fn hears_multicast(world: &tests::World, tap: &Tap) -> [bool; 2] {
    let outside = world.named("outside");
    outside.sh("ip route replace 224.0.0.0/4 dev wan0; ping -c 1 -W 1 2001:db8:1::abcd || true").assert_ok();
    let solicited =
        arrives(tap, |frame| icmpv6_type(frame) == Some(135) && frame.starts_with(&[0x33, 0x33, 0xff, 0, 0xab, 0xcd]));
    outside.enter(|| UdpSocket::bind("192.0.2.1:0").unwrap().send_to(b"who is there", "224.0.0.251:5353").unwrap());
    [solicited, arrives(tap, |frame| frame.starts_with(&[1, 0, 0x5e, 0, 0, 0xfb]))]
}

fn multicast() {
    let world = world();
    let mut chain = Chain::new(&world, "pod", &[network("macvlan", Stack::Dual)]);
    chain.add();
    chain.settle();
    let before = chain.pod().snapshot();
    chain.plugins.push(request(&json!({})));
    chain.call("ADD", 1, chain.result.as_ref()).assert_ok();
    chain.check();
    let tap = attached(chain.pod(), "tap0");
    assert_eq!(hears_multicast(&world, &tap), [true; 2], "a solicitation for the guest, and a group of its own");
    chain.pod().run(&["ip", "link", "set", "eth0", "allmulticast", "off"]).assert_ok();
    let told = chain.check_fails();
    assert!(told.contains("link eth0: all-multicast is off, not on"), "{told}");
    drop(tap);
    chain.pod().run(&["ip", "link", "set", "eth0", "allmulticast", "on"]).assert_ok();
    chain.check();
    chain.call("DEL", 1, chain.result.as_ref()).assert_ok();
    before.assert_same(&chain.pod().snapshot());
}
