//! Bridge binding: the guest has the pod's own addresses, the namespace is silent, and nothing is left afterwards.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{FakeGuest, Ns, Tap, World, exchange, trial};

use super::chain::{Chain, Stack, network, tapvisor, world};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: CNI-BRIDGE-1
        trial("bridge binding carries traffic after bridge, dual-stack", || every_way("bridge", Stack::Dual)),
        trial("bridge binding carries traffic after bridge, IPv4 only", || every_way("bridge", Stack::V4)),
        trial("bridge binding carries traffic after bridge, IPv6 only", || every_way("bridge", Stack::V6)),
        // spec: CNI-BRIDGE-1
        trial("bridge binding carries traffic after ptp, dual-stack", || every_way("ptp", Stack::Dual)),
        trial("bridge binding carries traffic after ptp, IPv4 only", || every_way("ptp", Stack::V4)),
        trial("bridge binding carries traffic after ptp, IPv6 only", || every_way("ptp", Stack::V6)),
        // spec: CNI-BRIDGE-1
        trial("bridge binding carries traffic after macvlan, dual-stack", || every_way("macvlan", Stack::Dual)),
        trial("bridge binding carries traffic after macvlan, IPv4 only", || every_way("macvlan", Stack::V4)),
        trial("bridge binding carries traffic after macvlan, IPv6 only", || every_way("macvlan", Stack::V6)),
        trial("a requested MAC is set on the pod interface, checked and undone", requested_mac),
        // spec: DHCP-5
        trial("of several addresses the first of the result is written into the mark", several_addresses),
        // spec: CNI-BRIDGE-3
        trial("the namespace of a bridge-bound pod is silent on the network", silent),
        // spec: CNI-GUARD-3
        trial("a bridge-bound guest's DHCP and solicitations reach only the launcher", services),
        trial("a network's advertisements do not reach a guest with addresses", foreign_advertisements),
        trial("the launcher finds the gateway through the service tap, sends no more", gateway),
        trial("a pod interface without addresses becomes pure layer 2", layer_2),
    ]
}

const BYTES: usize = 2_000_000;

pub(super) fn request(more: &Value) -> Value {
    let mut interface = json!({"name": "default", "podInterface": "eth0", "binding": "bridge"});
    for (key, value) in more.as_object().expect("an object") {
        interface[key] = value.clone();
    }
    tapvisor(&json!([interface]))
}

/// A pod on a network, wired for bridge binding.
pub(super) fn wired<'w>(world: &'w World, kind: &str, stack: Stack, more: &Value) -> Chain<'w> {
    let mut chain = Chain::new(world, "pod", &[network(kind, stack), request(more)]);
    chain.add();
    chain
}

pub(super) fn mac_of(pod: &Ns<'_>, link: &str) -> String {
    pod.run(&["ip", "-j", "link", "show", link]).json()[0]["address"].as_str().expect("an address").to_owned()
}

/// A guest with the pod's addresses and routes, as DHCP and router advertisements would tell it.
fn guest<'w>(world: &'w World, chain: &Chain<'_>) -> FakeGuest<'w> {
    let guest = FakeGuest::plug(world, "guest", chain.pod(), "tap0", &mac_of(chain.pod(), "eth0"));
    let result = chain.result.as_ref().expect("ADD came before");
    for ip in result["ips"].as_array().expect("addresses") {
        let (address, gateway) = (ip["address"].as_str().expect("text"), ip["gateway"].as_str().expect("text"));
        let host = address.split('/').next().expect("split gives one");
        let length = if host.contains(':') { 128 } else { 32 };
        let script = format!(
            "ip addr add {host}/{length} dev eth0 $(case {host} in *:*) echo nodad;; esac)
            ip route add {gateway}/{length} dev eth0; ip route add default via {gateway} dev eth0"
        );
        guest.ns().sh(&script).assert_ok();
    }
    guest
}

fn every_way(kind: &str, stack: Stack) {
    let world = world();
    let mut peer = Chain::new(&world, "peer", &[network(kind, stack)]);
    peer.add();
    let mut chain = Chain::new(&world, "pod", &[network(kind, stack)]);
    chain.add();
    chain.settle();
    let before = chain.pod().snapshot();
    chain.plugins.push(request(&json!({})));
    let answer = chain.call("ADD", 1, chain.result.as_ref()).json();
    assert_eq!(Some(&answer), chain.result.as_ref(), "the previous result goes on unchanged");
    chain.check();

    let guest = guest(&world, &chain);
    for version in stack.versions() {
        let pod = chain.address(*version).expect("the pod has an address");
        let other = peer.address(*version).expect("the peer has an address");
        assert_eq!(exchange(guest.ns(), peer.pod(), pod, BYTES), other, "the guest sees who asks");
        assert_eq!(exchange(peer.pod(), guest.ns(), other, BYTES), pod, "the peer sees the pod");
        peer.pod().run(&["ping", "-c", "1", "-W", "20", &pod.to_string()]).assert_ok();
    }
    chain.check();
    drop(guest);
    chain.call("DEL", 1, chain.result.as_ref()).assert_ok();
    before.assert_same(&chain.pod().snapshot());
    chain.plugins.pop();
    chain.check();
    chain.del();
}

fn requested_mac() {
    const REQUESTED: &str = "02:00:00:00:00:77";
    let world = world();
    let mut chain = Chain::new(&world, "pod", &[network("bridge", Stack::Dual)]);
    chain.add();
    let before = chain.pod().snapshot();
    chain.plugins.push(request(&json!({"mac": REQUESTED})));
    let previous = chain.result.clone();
    chain.result = Some(chain.call("ADD", 1, previous.as_ref()).json());
    assert_eq!(mac_of(chain.pod(), "eth0"), REQUESTED);
    let interfaces = chain.result.as_ref().expect("a result")["interfaces"].as_array().expect("interfaces").clone();
    let of_pod = interfaces.iter().find(|interface| interface["sandbox"] == chain.pod().path().as_str());
    assert_eq!(of_pod.expect("the pod's interface")["mac"], REQUESTED);
    chain.check();
    chain.call("DEL", 1, chain.result.as_ref()).assert_ok();
    before.assert_same(&chain.pod().snapshot());
}

/// Counts in the node's own tables what comes from a pod, by nft words.
pub(super) fn watch(world: &World, family: &str, hook: &str, words: &str) {
    let script = format!(
        "nft add table {family} watch
        nft add chain {family} watch seen '{{ type filter hook {hook} priority -300; }}'
        nft add rule {family} watch seen {words} counter"
    );
    world.sh(&script).assert_ok();
}

pub(super) fn watched(world: &World, family: &str) -> u64 {
    let listing = world.run(&["nft", "-j", "list", "table", family, "watch"]).json();
    let rules = listing["nftables"].as_array().expect("a listing").iter().filter_map(|entry| entry.get("rule"));
    let expressions = rules.flat_map(|rule| rule["expr"].as_array().cloned().unwrap_or_default());
    expressions.filter_map(|expression| expression["counter"]["packets"].as_u64()).sum()
}

/// Two addresses of each family, as a network with several ranges gives them.
fn several_addresses() {
    let world = world();
    let ranges = ["10.77.0.0/24", "10.78.0.0/24", "fd77:1::/64", "fd78:1::/64"].map(|net| json!([{"subnet": net}]));
    let network = json!({"cniVersion": "1.0.0", "name": "twoips", "type": "bridge", "bridge": "br-two",
        "ipam": {"type": "host-local", "dataDir": "/run/twoips", "ranges": ranges}});
    let mut chain = Chain::new(&world, "pod", &[network, request(&json!({}))]);
    chain.add();
    chain.settle();
    chain.check();
    let alias = chain.pod().run(&["ip", "-j", "link", "show", "tap0"]).json()[0]["ifalias"].to_string();
    for (key, version) in [("address4", 4), ("address6", 6)] {
        let first = chain.address(version).expect("the network gave one");
        assert!(alias.contains(&format!(" {key}={first}")), "{alias}");
    }
    chain.del();
}

fn silent() {
    let world = world();
    let chain = wired(&world, "bridge", Stack::Dual, &json!({}));
    let mac = mac_of(chain.pod(), "eth0");
    watch(&world, "bridge", "prerouting", &format!("ether saddr {mac}"));
    // What a namespace that is not silent would send: ARP, neighbour solicitations, TCP, and at link-up MLD and RS.
    for gateway in ["10.244.1.1", "fd00:10:244:1::1"] {
        let ran = chain.pod().run(&["ping", "-c", "1", "-W", "1", gateway]);
        assert!(!ran.is_ok(), "{}", ran.account());
    }
    chain.pod().sh("ip maddr add 33:33:00:00:00:99 dev eth0; ip addr add fd00:10:244:1::99/64 dev eth0").assert_ok();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(watched(&world, "bridge"), 0, "frames of the namespace were seen on the network");

    let guest = guest(&world, &chain);
    guest.ns().run(&["ping", "-c", "1", "-W", "20", "10.244.1.1"]).assert_ok();
    assert!(watched(&world, "bridge") > 0, "the watch sees the guest's frames");
}

/// Sends one datagram from the guest, as its DHCP client would.
fn ask(guest: &FakeGuest<'_>, to: &str, from_port: u16) {
    let any = if to.starts_with('[') { "[::]" } else { "0.0.0.0" };
    guest.ns().enter(|| {
        let socket = std::net::UdpSocket::bind(format!("{any}:{from_port}")).expect("a client port is free");
        socket.set_broadcast(true).expect("broadcast can be allowed");
        socket.send_to(b"a question", to).unwrap_or_else(|error| panic!("{to}: {error}"));
    });
}

/// A tap that is ours and passes frames on: the kernel takes up to a second to see that it has a carrier.
pub(super) fn attached(pod: &Ns<'_>, name: &str) -> Tap {
    let tap = pod.enter(|| Tap::attach(name, false));
    pod.wait_carrier(name);
    tap
}

/// Whether a frame that satisfies `wanted` arrives, however long it takes on a busy machine.
pub(super) fn arrives(tap: &Tap, wanted: impl Fn(&[u8]) -> bool) -> bool {
    arrives_within(tap, Duration::from_secs(60), wanted)
}

/// Whether such a frame has arrived or arrives within two seconds: for what must not.
pub(super) fn arrives_soon(tap: &Tap, wanted: impl Fn(&[u8]) -> bool) -> bool {
    arrives_within(tap, Duration::from_secs(2), wanted)
}

fn arrives_within(tap: &Tap, limit: Duration, wanted: impl Fn(&[u8]) -> bool) -> bool {
    let start = Instant::now();
    let left_ms = || u16::try_from(limit.saturating_sub(start.elapsed()).as_millis()).unwrap_or(u16::MAX);
    // What waits to be read is looked at even when the time is over.
    std::iter::from_fn(|| tap.receive(left_ms())).any(|frame| wanted(&frame))
}

fn is_udp_to(frame: &[u8], port: u16) -> bool {
    let transport = match frame.get(12..14) {
        Some([0x08, 0x00]) => 34,
        Some([0x86, 0xdd]) => 54,
        _ => return false,
    };
    frame.get(transport + 2..transport + 4) == Some(&port.to_be_bytes())
}

pub(super) fn icmpv6_type(frame: &[u8]) -> Option<u8> {
    (frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.get(20) == Some(&58)).then(|| frame.get(54).copied())?
}

fn services() {
    let world = world();
    let chain = wired(&world, "bridge", Stack::Dual, &json!({}));
    watch(&world, "inet", "prerouting", "udp dport { 67, 547 }");
    world.sh("nft add rule inet watch seen icmpv6 type nd-router-solicit counter").assert_ok();
    let guest = guest(&world, &chain);
    guest.ns().sh("ip addr add fe80::42/64 dev eth0 nodad").assert_ok();
    let service = attached(chain.pod(), "svc-eth0");
    let gateway = "10.244.1.1:67";
    ask(&guest, "255.255.255.255:67", 68);
    assert!(arrives(&service, |frame| is_udp_to(frame, 67)), "a broadcast DISCOVER reaches the service tap");
    ask(&guest, gateway, 68);
    assert!(arrives(&service, |frame| is_udp_to(frame, 67)), "a unicast renewal reaches the service tap");
    let link = guest.ns().enter(|| nix::net::if_::if_nametoindex("eth0").expect("eth0 is there"));
    ask(&guest, &format!("[ff02::1:2%{link}]:547"), 546);
    assert!(arrives(&service, |frame| is_udp_to(frame, 547)), "a DHCPv6 question reaches the service tap");
    guest
        .ns()
        .sh("ip link set eth0 down; sysctl -qw net.ipv6.conf.eth0.router_solicitation_delay=0; ip link set eth0 up")
        .assert_ok();
    assert!(
        arrives(&service, |frame| icmpv6_type(frame) == Some(133)),
        "a router solicitation reaches the service tap"
    );
    assert_eq!(watched(&world, "inet"), 0, "the pod network saw the guest's questions");
}

/// A router advertisement as the node would send it, by way of the pod's own link.
fn foreign_advertisements() {
    let world = world();
    let chain = wired(&world, "bridge", Stack::Dual, &json!({}));
    let inside = attached(chain.pod(), "tap0");
    let send = |kind: u8| {
        let script = format!(
            "import socket,struct
s=socket.socket(socket.AF_INET6,socket.SOCK_RAW,socket.IPPROTO_ICMPV6)
s.setsockopt(socket.IPPROTO_IPV6,socket.IPV6_MULTICAST_HOPS,255)
s.sendto(struct.pack('!BBHBBHII',{kind},0,0,64,0,1800,0,0),('ff02::1',0,0,socket.if_nametoindex('cni0')))"
        );
        world.run(&["python3", "-c", &script]).assert_ok();
    };
    send(134);
    assert!(!arrives_soon(&inside, |frame| icmpv6_type(frame) == Some(134)), "the guest heard the network's router");
    send(128);
    assert!(arrives(&inside, |frame| icmpv6_type(frame) == Some(128)), "the guest hears other multicasts");
}

fn gateway() {
    let world = world();
    let chain = wired(&world, "bridge", Stack::V6, &json!({}));
    let service = attached(chain.pod(), "svc-eth0");
    let guest_side = attached(chain.pod(), "tap0");
    let mac: terms::MacAddr = mac_of(chain.pod(), "eth0").parse().expect("an Ethernet address");
    let own = wiring::service_link_local(mac);
    let gateway = "fd00:10:244:1::1".parse().unwrap();
    watch(&world, "bridge", "prerouting", &format!("ether saddr {mac} ip6 saddr {own}"));

    service.send(&solicitation(mac.bytes(), own, gateway));
    let is_answer = |frame: &[u8]| frame.starts_with(&mac.bytes()) && icmpv6_type(frame) == Some(136);
    assert!(arrives(&service, is_answer), "the gateway's advertisement reaches the launcher");
    assert_eq!(watched(&world, "bridge"), 1);
    service.send(&solicitation(mac.bytes(), own, "fd00:10:244:1::2".parse().unwrap()));
    assert!(arrives(&guest_side, |frame| icmpv6_type(frame) == Some(135)), "other frames go to the guest");
    assert_eq!(watched(&world, "bridge"), 1, "only the question for the gateway leaves");
}

/// A neighbour solicitation (RFC 4861 §4.3) from a link-local address.
fn solicitation(mac: [u8; 6], source: std::net::Ipv6Addr, target: std::net::Ipv6Addr) -> Vec<u8> {
    let (source, target) = (source.octets(), target.octets());
    let mut group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0];
    group[13..].copy_from_slice(&target[13..]);
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target);
    message.extend([1, 1]);
    message.extend(mac);
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    let mut pseudo: Vec<u8> = [source, group].concat();
    pseudo.extend([0, 0, length[0], length[1], 0, 0, 0, 58]);
    pseudo.extend(&message);
    let sum = pseudo.chunks(2).fold(0_u32, |sum, pair| sum + u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    message[2..4].copy_from_slice(&(!folded).to_be_bytes());
    let mut frame = vec![0x33, 0x33, 0xff, target[13], target[14], target[15]];
    frame.extend(mac);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, length[0], length[1], 58, 255]);
    frame.extend(source);
    frame.extend(group);
    frame.extend(message);
    frame
}

fn layer_2() {
    let world = world();
    let mut bare = network("bridge", Stack::V4);
    bare["ipam"] = json!({});
    bare["isGateway"] = false.into();
    let mut chain = Chain::new(&world, "pod", &[bare, request(&json!({"queues": 2}))]);
    chain.add();
    // The reference bridge's own CHECK fails without IPAM; ours must not.
    chain.call("CHECK", 1, chain.result.as_ref()).assert_ok();
    let links = chain.pod().run(&["ip", "-j", "link"]).json();
    let names: Vec<_> = links.as_array().expect("links").iter().map(|link| link["ifname"].clone()).collect();
    assert!(!names.contains(&"svc-eth0".into()), "{names:?}");
    let mac = mac_of(chain.pod(), "eth0");
    let guest = FakeGuest::plug_multi_queue(&world, "guest", chain.pod(), "tap0", &mac);
    guest.ns().sh("ip addr add 10.9.9.2/24 dev eth0").assert_ok();
    world.sh("ip addr add 10.9.9.1/24 dev cni0").assert_ok();
    guest.ns().run(&["ping", "-c", "1", "-W", "20", "10.9.9.1"]).assert_ok();
    drop(guest);
    chain.call("DEL", 1, chain.result.as_ref()).assert_ok();
}
