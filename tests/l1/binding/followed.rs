//! Reference plugins behind ours in one chain, of both releases: what they promise holds for a guest too.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{FakeGuest, Ns, World, cache_file, exchange, trial};

use super::chain::{Chain, Stack, network, tapvisor, world};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: CNI-CHAIN
        trial("a host port of portmap 1.1.1 leads to a guest in both bindings", || host_port(Release::V1_1_1)),
        // spec: CNI-CHAIN
        trial("a host port of portmap 1.9.1 leads to a guest in both bindings", || host_port(Release::V1_9_1)),
        // spec: CNI-CHAIN
        trial("bandwidth 1.1.1 slows a guest in both bindings and both ways", || bandwidth(Release::V1_1_1)),
        // spec: CNI-CHAIN
        trial("bandwidth 1.9.1 slows a guest in both bindings and both ways", || bandwidth(Release::V1_9_1)),
        // spec: CNI-CHAIN
        trial("tuning 1.1.1 changes the pod's interface behind both bindings", || tuning(Release::V1_1_1)),
        // spec: CNI-CHAIN
        trial("tuning 1.9.1 changes the pod's interface behind both bindings", || tuning(Release::V1_9_1)),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Release {
    V1_1_1,
    V1_9_1,
}

impl Release {
    fn folder(self) -> String {
        match self {
            Self::V1_1_1 => "/usr/lib/cni".to_owned(),
            Self::V1_9_1 => cache_file("go/plugins").display().to_string(),
        }
    }
}

const BINDINGS: [&str; 2] = ["masquerade", "bridge"];
const GUEST_MAC: &str = "02:00:00:00:00:42";

/// A pod on ptp with a guest, and one more plugin behind ours. It lasts for `act`; then all of it is detached.
fn with_guest(world: &World, binding: &str, release: Release, last: &Value, act: impl FnOnce(&Chain<'_>, &Ns<'_>)) {
    let own = tapvisor(&json!([{"name": "default", "podInterface": "eth0", "binding": binding}]));
    let mut chain = Chain::new(world, "pod", &[network("ptp", Stack::V4), own, last.clone()]);
    chain.folder = release.folder();
    let before = chain.pod().snapshot();
    chain.add();
    chain.call("CHECK", 1, chain.result.as_ref()).assert_ok();
    let guest = match binding {
        "masquerade" => {
            let guest = FakeGuest::plug(world, "guest", chain.pod(), "k6t-eth0", GUEST_MAC);
            guest.ns().sh("ip addr add 10.0.2.2/24 dev eth0; ip route add default via 10.0.2.1").assert_ok();
            guest
        }
        _ => {
            let link = chain.pod().run(&["ip", "-j", "link", "show", "eth0"]).json();
            let guest =
                FakeGuest::plug(world, "guest", chain.pod(), "tap0", link[0]["address"].as_str().expect("text"));
            let address = chain.address(4).expect("the pod has an address");
            let script = format!(
                "ip addr add {address}/32 dev eth0; ip route add 10.244.1.1 dev eth0; \
                 ip route add default via 10.244.1.1 dev eth0"
            );
            guest.ns().sh(&script).assert_ok();
            guest
        }
    };
    act(&chain, guest.ns());
    drop(guest);
    chain.del();
    before.assert_same(&chain.pod().snapshot());
}

fn host_port(release: Release) {
    let mut portmap = json!({"type": "portmap", "runtimeConfig":
        {"portMappings": [{"hostPort": 18080, "containerPort": 80, "protocol": "tcp"}]}});
    if release == Release::V1_9_1 {
        portmap["backend"] = "nftables".into();
    }
    for binding in BINDINGS {
        let world = world();
        // From another machine: a pod of the same subnet would be masqueraded by portmap itself.
        let outside = world.named("outside");
        with_guest(&world, binding, release, &portmap, |chain, guest| {
            chain.call("CHECK", 1, chain.result.as_ref()).assert_ok();
            let host: SocketAddr = ([192, 0, 2, 2], 18080).into();
            let listener = guest.enter(|| TcpListener::bind("0.0.0.0:80").expect("the guest listens"));
            let served = std::thread::spawn(move || {
                let (mut stream, from) = listener.accept().expect("a listening socket accepts");
                stream.write_all(b"the guest").expect("an answer can be sent");
                from.ip()
            });
            let said = outside.enter(|| read_all(host));
            assert_eq!(said, "the guest", "{binding}");
            let seen = served.join().expect("the guest has served");
            assert_eq!(seen, std::net::Ipv4Addr::new(192, 0, 2, 1), "{binding}: the guest sees who asks");
        });
    }
}

fn read_all(at: SocketAddr) -> String {
    let limit = Duration::from_secs(60);
    let mut stream = TcpStream::connect_timeout(&at, limit).unwrap_or_else(|error| panic!("no {at}: {error}"));
    stream.set_read_timeout(Some(limit)).expect("a limit that is not zero");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("an answer comes");
    said
}

fn bandwidth(release: Release) {
    const BYTES: usize = 1_500_000;
    // 8 Mbit/s after a burst of 100 kB: what is left of the stream takes 1.4 s each way.
    let rate = json!({"type": "bandwidth", "ingressRate": 8_000_000, "ingressBurst": 800_000,
        "egressRate": 8_000_000, "egressBurst": 800_000});
    for binding in BINDINGS {
        let world = world();
        let mut peer = Chain::new(&world, "peer", &[network("ptp", Stack::V4)]);
        peer.add();
        with_guest(&world, binding, release, &rate, |chain, guest| {
            chain.check();
            let pod = chain.address(4).expect("the pod has an address");
            let start = Instant::now();
            let seen = exchange(guest, peer.pod(), pod, BYTES);
            let took = start.elapsed();
            assert_eq!(Some(seen), peer.address(4), "{binding}");
            assert!(took > Duration::from_millis(2400), "{binding}: {BYTES} bytes there and back in {took:?}");
        });
    }
}

fn tuning(release: Release) {
    let tuning = json!({"type": "tuning", "mtu": 1400, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}});
    for binding in BINDINGS {
        let world = world();
        let mut peer = Chain::new(&world, "peer", &[network("ptp", Stack::V4)]);
        peer.add();
        with_guest(&world, binding, release, &tuning, |chain, guest| {
            let link = chain.pod().run(&["ip", "-j", "link", "show", "eth0"]).json();
            assert_eq!(link[0]["mtu"], 1400);
            chain.pod().run(&["cat", "/proc/sys/net/ipv4/conf/eth0/arp_filter"]).assert_ok();
            chain.call("CHECK", 1, chain.result.as_ref()).assert_ok();
            let pod = chain.address(4).expect("the pod has an address");
            // Kept below the smaller MTU, as the guest's interface has the tap's.
            guest.sh("ip link set eth0 mtu 1400").assert_ok();
            let _seen = exchange(guest, peer.pod(), pod, 200_000);
        });
    }
}
