//! The neighbour tables, which all namespaces of a host share, under a masquerade guest that invents neighbours.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use etherparse::PacketBuilder;
use libtest_mimic::Trial;
use serde_json::json;
use tests::{FakeGuest, Ns, Outside, Tap, World, trial, wait_for};

use super::chain::{Chain, Stack, network, tapvisor, world};
use super::guest_limits::{V4, V6, counted};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: CNI-GUARD-2
        trial("a guest that invents senders fills no neighbour table", flood),
        // spec: CNI-GUARD-2
        trial("a masquerade guest may use eight link-local addresses and no ninth", link_local_addresses),
        // spec: CNI-DEL-2, OPS-8
        trial("DEL removes a wiring of the previous generation and leaves nothing", previous_generation),
    ]
}

const GUEST: [u8; 6] = [2, 0, 0, 0, 0, 0x42];
const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 0];
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 0);
const PATIENCE: Duration = Duration::from_secs(60);

/// More than the kernel keeps by default (`gc_thresh3`, 1024) for all namespaces together.
const INVENTED: u16 = 1500;

/// What a guest may have: its own two addresses, eight link-local ones, 128 destinations on the pod's link, the gateways.
const MOST: usize = 160;

fn masquerade<'w>(world: &'w World, pod: &str, network: serde_json::Value) -> Chain<'w> {
    let ours = tapvisor(&json!([{"name": "default", "podInterface": "eth0", "binding": "masquerade"}]));
    let mut chain = Chain::new(world, pod, &[network, ours]);
    chain.add();
    chain
}

/// An address that no other number of the same `prefix` gives.
fn invented(prefix: [u16; 4], number: u16) -> Ipv6Addr {
    let [a, b, c, d] = prefix;
    Ipv6Addr::new(a, b, c, d, 0, 0x1d, 0, number.wrapping_add(0x100))
}

fn ethernet(to: [u8; 6], ethertype: &[u8], payload: &[u8]) -> Vec<u8> {
    [&to[..], &GUEST, ethertype, payload].concat()
}

/// An ARP request for the gateway (RFC 826), behind these tags.
fn arp_request(sender: Ipv4Addr, tags: &[u8]) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 1];
    let payload = [&head[..], &GUEST, &sender.octets(), &[0; 6], &[10, 0, 2, 1]].concat();
    ethernet([0xff; 6], &[tags, &[8, 6]].concat(), &payload)
}

/// A neighbour solicitation for the gateway with the sender's Ethernet address (RFC 4861 §4.3).
fn solicitation(sender: Ipv6Addr) -> Vec<u8> {
    let message = [&[0; 4][..], &GATEWAY_V6.octets(), &[1, 1], &GUEST].concat();
    let built = PacketBuilder::ethernet2(GUEST, GATEWAY).ipv6(sender.octets(), GATEWAY_V6.octets(), 255);
    let built = built.icmpv6_raw(135, 0, [message[0], message[1], message[2], message[3]]);
    let mut frame = Vec::new();
    built.write(&mut frame, &message[4..]).unwrap();
    frame
}

fn echo_request(from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    let mut frame = Vec::new();
    let built = PacketBuilder::ethernet2(GUEST, GATEWAY).ipv6(from.octets(), to.octets(), 64);
    built.icmpv6_echo_request(1, 1).write(&mut frame, b"flood").unwrap();
    frame
}

fn datagram(to: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::new();
    let built = PacketBuilder::ethernet2(GUEST, GATEWAY).ipv4([10, 0, 2, 2], to.octets(), 64);
    built.udp(1000, 1000).write(&mut frame, b"flood").unwrap();
    frame
}

/// The network of the pod's own link.
const POD_NETWORK: [u16; 4] = [0xfd00, 0x10, 0x244, 1];

fn behind_tap(number: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0200 + u32::from(number % 256))
}

/// Makes the frame of one invented sender.
type Forge = Box<dyn Fn(u16) -> Vec<u8>>;

/// Every way in which a guest's frames can have the kernel look for a neighbour or note one.
fn floods() -> Vec<(&'static str, Forge)> {
    let own: Ipv6Addr = "fd10:0:2::2".parse().unwrap();
    let v4 = |number: u16| Ipv4Addr::from_bits(0xac10_0000 + u32::from(number));
    // Tags of VLAN 0 twice: the kernel takes off both, the second only after the hooks of the device.
    let tags = [0x81, 0, 0, 0, 0x81, 0, 0, 0];
    vec![
        ("ARP from invented senders", Box::new(move |number| arp_request(v4(number), &[]))),
        ("ARP within tags", Box::new(move |number| arp_request(v4(number), &tags))),
        ("solicitations", Box::new(|number| solicitation(invented([0xfe80, 0, 0, 0], number)))),
        ("answers to be sent", Box::new(|number| echo_request(invented([0xfe80, 0, 0, 0], number), GATEWAY_V6))),
        ("link-local targets", Box::new(move |number| echo_request(own, invented([0xfe80, 0, 0, 0], number)))),
        ("targets in the guest's subnet", Box::new(|number| datagram(behind_tap(number)))),
        ("targets on the pod's link", Box::new(move |number| echo_request(own, invented(POD_NETWORK, number)))),
    ]
}

/// Entries of all states in the neighbour tables of a namespace.
fn entries(ns: &Ns<'_>) -> usize {
    let count = |family: &str| {
        let listing = ns.run(&["ip", family, "neigh", "show", "nud", "all"]).text();
        listing.lines().filter(|line| !line.contains("NOARP")).count()
    };
    count("-4") + count("-6")
}

fn flood() {
    let world = world();
    let flooding = masquerade(&world, "flooding", network("bridge", Stack::Dual));
    let other = masquerade(&world, "other", network("bridge", Stack::Dual));
    let guest = FakeGuest::plug(&world, "guest", other.pod(), "k6t-eth0", "02:00:00:00:00:43");
    guest.ns().sh(&format!("{V4}; {V6}")).assert_ok();
    for pods in ["10.244.1.0/24", "fd00:10:244:1::/64"] {
        world.outside().route_to_host(&world, pods);
    }
    let tap = flooding.pod().enter(|| Tap::attach("k6t-eth0", false));
    let mut overflowing = Vec::new();
    for (kind, frame) in floods() {
        (0..INVENTED).for_each(|number| tap.send(&frame(number)));
        let found = entries(flooding.pod());
        if found > MOST {
            overflowing.push(format!("{kind}: {found} entries"));
        }
        // Needs new entries in the guest, in its pod and on the host.
        guest.ns().run(&["ip", "neigh", "flush", "dev", "eth0"]).assert_ok();
        for target in [Outside::V4, Outside::V6] {
            guest.ns().run(&["ping", "-c", "1", "-W", "20", target]).assert_ok();
        }
    }
    assert!(overflowing.is_empty(), "{overflowing:?}");
    flooding.check();
}

fn link_local_addresses() {
    let world = world();
    let chain = masquerade(&world, "pod", network("ptp", Stack::Dual));
    let tap = chain.pod().enter(|| Tap::attach("k6t-eth0", false));
    let dropped = || counted(chain.pod(), "inet tapvisor", "eth0: too many link-local addresses");
    (0..8).for_each(|number| tap.send(&solicitation(invented([0xfe80, 0, 0, 0], number))));
    let known = || entries_with(chain.pod(), "fe80::1d:");
    wait_for("eight addresses to be noted", PATIENCE, || (known() == 8).then_some(()));
    assert_eq!(dropped(), 0);
    tap.send(&solicitation(invented([0xfe80, 0, 0, 0], 8)));
    wait_for("the ninth to be dropped", PATIENCE, || (dropped() == 1).then_some(()));
    // The guest's own address and the eight are served all the same, and what the rules noted is no difference.
    tap.send(&solicitation("fd10:0:2::2".parse().unwrap()));
    tap.send(&solicitation(invented([0xfe80, 0, 0, 0], 0)));
    wait_for("the guest's own address", PATIENCE, || (entries_with(chain.pod(), "fd10:0:2::2") == 1).then_some(()));
    assert_eq!((dropped(), known()), (1, 8));
    chain.check();
}

fn entries_with(ns: &Ns<'_>, start: &str) -> usize {
    let listing = ns.run(&["ip", "-6", "neigh", "show", "dev", "k6t-eth0", "nud", "all"]).text();
    listing.lines().filter(|line| line.starts_with(start)).count()
}

/// What generation 2 made of a masquerade NIC in a pod with one network, as `ip` and `nft` say it.
const GENERATION_2: &str = include_str!("generation_2.sh");

fn previous_generation() {
    let world = world();
    let mut chain = Chain::new(&world, "pod", &[network("ptp", Stack::Dual)]);
    chain.add();
    chain.settle();
    let before = chain.pod().snapshot();
    chain.plugins.push(tapvisor(&json!([{"name": "default", "podInterface": "eth0", "binding": "masquerade"}])));
    let group = group_of(&chain);
    assert_eq!(before.changes(&chain.pod().snapshot()), "");
    chain.pod().sh(&GENERATION_2.replace("GROUP", &group)).assert_ok();
    let found = chain.check_fails();
    assert!(found.contains("mark is of another release: generation 2"), "{found}");
    let again = chain.call("ADD", 1, chain.result.as_ref());
    assert!(again.stdout().contains("was wired by another release: generation 2"), "{}", again.account());
    chain.call("DEL", 1, chain.result.as_ref()).assert_ok();
    before.assert_same(&chain.pod().snapshot());
}

/// The link group that this attachment's taps get, from a wiring that is taken away again.
fn group_of(chain: &Chain<'_>) -> String {
    chain.call("ADD", 1, chain.result.as_ref()).assert_ok();
    let group = chain.pod().run(&["ip", "-j", "link", "show", "k6t-eth0"]).json()[0]["group"].clone();
    chain.call("DEL", 1, chain.result.as_ref()).assert_ok();
    group.as_str().expect("a group").to_owned()
}
