//! CHECK reports what is broken and tolerates foreign changes; DEL leaves nothing, whatever it finds; ADD refuses as a whole.

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{World, trial};

use super::chain::{Chain, Stack, network, tapvisor, world};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: CNI-CHECK
        trial("CHECK names each thing of a wiring that was taken away or altered", check_notices),
        // spec: CNI-CHECK
        trial("CHECK tolerates what later plugins and people may change", check_forgives),
        // spec: CNI-DEL-3
        trial("DEL brings the namespace back from every half of a wiring", del_of_halves),
        trial("DEL succeeds twice, without result, CNI_NETNS or namespace", del_variants),
        // spec: CNI-ADD-1
        trial("a repeated ADD changes nothing, and one for another request is refused", repeated),
        // spec: CNI-ADD-2
        trial("ADD does not call a wiring wired of which something is gone", incomplete),
        // spec: CNI-PREV
        trial("ADD refuses an invalid previous result, DEL works with any arguments", malformed),
        // spec: CNI-DEL-4
        trial("links with unusual names block neither ADD nor DEL", strange_links),
        // spec: CNI-ADD-3
        trial("a second attachment with the same request succeeds, CHECK too", second_attachment),
        trial("a request that cannot be met is refused whole", refused),
        trial("taps come for several queues and with the MTU of the pod interface", queues_and_mtu),
        // spec: NODE-7
        trial("GC leaves what ADDs in flight make, whatever it is told is alive", collected_meanwhile),
        trial("a dry run prints the plan, a record holds every kernel call", trials_by_hand),
        // spec: CNI-MASQ-6
        trial("routes of router advertisements survive and DEL restores accept_ra", advertised_routes),
    ]
}

fn request() -> Value {
    let ports = json!([{"protocol": "TCP", "port": 80}, {"protocol": "TCP", "port": 5001}]);
    tapvisor(&json!([{"name": "default", "podInterface": "eth0", "binding": "masquerade", "ports": ports}]))
}

/// A pod after ADD of the distribution's bridge alone.
fn pod<'w>(world: &'w World, name: &str) -> Chain<'w> {
    let mut chain = Chain::new(world, name, &[network("bridge", Stack::Dual)]);
    chain.add();
    chain
}

fn wire(chain: &mut Chain<'_>, request: Value) {
    chain.plugins.push(request);
    chain.call("ADD", 1, chain.result.as_ref()).assert_ok();
}

/// The kernel notes a moment later that taps have no carrier.
fn settle(chain: &Chain<'_>, taps: usize) {
    tests::wait_for("the taps to settle", std::time::Duration::from_secs(60), || {
        let links = chain.pod().run(&["ip", "link", "show"]).text();
        (links.matches("NO-CARRIER").count() == taps).then_some(())
    });
}

fn check_notices() {
    let world = world();
    let cases = [
        ("ip link del svc-eth0", "link svc-eth0 is missing"),
        ("ip link del k6t-eth0", "link k6t-eth0 is missing"),
        ("ip link set k6t-eth0 down", "link k6t-eth0: up is false"),
        ("ip link set k6t-eth0 mtu 1400", "link k6t-eth0: MTU is 1400, not 1500"),
        ("ip link set k6t-eth0 address 02:00:00:00:00:05", "link k6t-eth0: MAC is 02:00:00:00:00:05"),
        ("ip link set k6t-eth0 group 7", "link k6t-eth0: link group is 7"),
        ("ip link set k6t-eth0 alias x", "link k6t-eth0: mark is missing"),
        ("ip link set k6t-eth0 alias 'tapvisor/3 00112233445566ff'", "request 00112233445566ff"),
        ("ip addr del 10.0.2.1/24 dev k6t-eth0", "address 10.0.2.1/24 is missing"),
        ("ip addr del fe80::ff:fe00:0/64 dev k6t-eth0", "address fe80::ff:fe00:0/64 is missing"),
        ("ip -6 route del local ::1 dev k6t-eth0 table local", "::1/128 dev k6t-eth0 table 255"),
        ("sysctl -qw net.ipv4.ip_forward=0", "sysctl net/ipv4/ip_forward is 0, not 1"),
        ("sysctl -qw net.ipv6.conf.all.forwarding=0", "sysctl net/ipv6/conf/all/forwarding is 0, not 1"),
        ("sysctl -qw net.ipv4.conf.k6t-eth0.route_localnet=0", "route_localnet is 0, not 1"),
        ("nft delete table netdev tapvisor", "table netdev tapvisor is missing"),
        ("nft delete table inet tapvisor", "table inet tapvisor is missing"),
        ("nft flush chain inet tapvisor guard", "to 127.0.0.0/8"),
        ("nft delete element inet tapvisor ports-eth0 '{ tcp . 80 }'", "set inet tapvisor ports-eth0"),
        ("nft flush set inet tapvisor pod4-eth0", "set inet tapvisor pod4-eth0"),
        ("nft insert rule inet tapvisor prerouting accept", "was added"),
        ("ip link del k6t-eth0; ip tuntap add k6t-eth0 mode tap multi_queue user 5", "owner is 5, not 107"),
    ];
    for (number, (breaking, named)) in cases.iter().enumerate() {
        let mut chain = pod(&world, &format!("pod{number}"));
        wire(&mut chain, request());
        chain.check();
        chain.pod().sh(breaking).assert_ok();
        let message = chain.check_fails();
        assert!(message.contains(named), "{breaking}: {message}");
        chain.del();
    }
}

fn check_forgives() {
    let world = world();
    let mut chain = pod(&world, "pod");
    let mut with_mtu = request();
    with_mtu["wiring"]["interfaces"][0]["mtu"] = 1450.into();
    wire(&mut chain, with_mtu);
    let cases = [
        "ip link set eth0 mtu 1400",
        "ip link set eth0 address 02:00:00:00:00:99",
        "ip addr add 10.244.1.200/24 dev eth0",
        "ip route add 203.0.113.0/24 dev eth0",
        "ip route add 10.0.0.0/8 dev eth0",
        "ip link add later type veth peer name later1",
        "nft add table inet other",
        "sysctl -qw net.ipv4.conf.all.rp_filter=1",
    ];
    for change in cases {
        chain.pod().sh(change).assert_ok();
        let ran = chain.call("CHECK", 1, chain.result.as_ref());
        assert!(ran.is_ok(), "{change}: {}", ran.account());
    }
}

fn del_of_halves() {
    let world = world();
    let halves = [
        "nft delete table inet tapvisor",
        "nft delete table netdev tapvisor; nft delete table inet tapvisor",
        "ip link del svc-eth0",
        "ip addr flush dev k6t-eth0; ip link set k6t-eth0 down",
        "ip link set k6t-eth0 alias \"tapvisor/3 0000000000000000 $(ip -j link show k6t-eth0 | jq -r .[0].ifalias | cut -d' ' -f3-)\"",
    ];
    for (number, half) in halves.iter().enumerate() {
        let mut chain = pod(&world, &format!("pod{number}"));
        let before = chain.pod().snapshot();
        wire(&mut chain, request());
        chain.pod().sh(half).assert_ok();
        chain.call("DEL", 1, None).assert_ok();
        before.assert_same(&chain.pod().snapshot());
        chain.call("ADD", 1, chain.result.as_ref()).assert_ok();
        chain.check();
    }
}

fn del_variants() {
    let world = world();
    let mut chain = pod(&world, "pod");
    let before = chain.pod().snapshot();
    wire(&mut chain, request());
    chain.call_in("DEL", 1, chain.result.as_ref(), "").assert_ok();
    chain.call_in("DEL", 1, chain.result.as_ref(), "/run/netns/gone").assert_ok();
    chain.check();
    // Another request, or none: DEL goes by what it finds.
    let wiring = chain.plugins[1]["wiring"].take();
    chain.call("DEL", 1, None).assert_ok();
    before.assert_same(&chain.pod().snapshot());
    chain.plugins[1]["wiring"] = wiring;
    chain.call("DEL", 1, None).assert_ok();
    before.assert_same(&chain.pod().snapshot());
    let mut stranger = chain.second_attachment("net1", &[chain.plugins[1].clone()]);
    chain.call("ADD", 1, chain.result.as_ref()).assert_ok();
    stranger.plugins[0]["wiring"].take();
    stranger.call("DEL", 0, None).assert_ok();
    chain.check();
}

fn repeated() {
    let world = world();
    let mut chain = pod(&world, "pod");
    wire(&mut chain, request());
    settle(&chain, 2);
    let before = chain.pod().snapshot();
    chain.call("ADD", 1, chain.result.as_ref()).assert_ok();
    before.assert_same(&chain.pod().snapshot());
    chain.plugins[1]["wiring"]["interfaces"][0]["queues"] = 2.into();
    fails(&chain, 7, "carries the mark of request");
    before.assert_same(&chain.pod().snapshot());
}

/// ADD fails with that code and those words, and nothing changes.
fn fails(chain: &Chain<'_>, code: u64, words: &str) {
    let before = chain.pod().snapshot();
    let ran = chain.call("ADD", 1, chain.result.as_ref());
    assert_eq!(ran.code(), Some(1), "{}", ran.account());
    let error: Value = serde_json::from_str(&ran.stdout()).expect("an error document");
    assert_eq!(error["code"], code, "{error}");
    assert!(error["msg"].as_str().expect("a message").contains(words), "{error}");
    before.assert_same(&chain.pod().snapshot());
}

fn incomplete() {
    let world = world();
    let missing = [
        ("nft delete table inet tapvisor", "nft table inet tapvisor is missing"),
        ("nft flush ruleset", "nft table inet tapvisor is missing"),
        ("ip link del svc-eth0", "svc-eth0 is missing"),
        ("sysctl -qw net.ipv4.ip_forward=0", "sysctl net/ipv4/ip_forward is 0, not 1"),
    ];
    for (number, (taking, words)) in missing.iter().enumerate() {
        let mut chain = pod(&world, &format!("pod{number}"));
        let before = chain.pod().snapshot();
        wire(&mut chain, request());
        settle(&chain, 2);
        chain.pod().sh(taking).assert_ok();
        fails(&chain, 7, words);
        chain.call("DEL", 1, None).assert_ok();
        before.assert_same(&chain.pod().snapshot());
    }
}

fn malformed() {
    let world = world();
    let mut chain = pod(&world, "pod");
    let before = chain.pod().snapshot();
    let result = chain.result.replace(json!({"cniVersion": "1.2.0"}));
    chain.plugins.push(request());
    fails(&chain, 1, "CNI version \"1.2.0\" is not supported");
    chain.result = Some(json!({"ips": [{"address": "nonsense"}]}));
    fails(&chain, 6, "result: ips[0].address");
    chain.result = result;
    chain.call("ADD", 1, chain.result.as_ref()).assert_ok();
    chain.call_under(&["env", "CNI_ARGS=garbage"], "DEL", 1).assert_ok();
    before.assert_same(&chain.pod().snapshot());
}

fn strange_links() {
    let world = world();
    let mut chain = pod(&world, "pod");
    // The kernel takes all but '/', ':' and whitespace; most other control characters make `ip -j` write what is no JSON.
    chain.pod().sh("ip link add \"$(printf 'bad\\177')\" type veth peer name \"$(printf '\\177')\"").assert_ok();
    let before = chain.pod().snapshot();
    wire(&mut chain, request());
    chain.call("CHECK", 1, chain.result.as_ref()).assert_ok();
    chain.call("DEL", 1, chain.result.as_ref()).assert_ok();
    before.assert_same(&chain.pod().snapshot());
}

fn second_attachment() {
    let world = world();
    let interface = |binding: &str| json!([{"name": "default", "podInterface": "eth0", "binding": binding}]);
    let cases = [("masquerade", "true", 2), ("bridge", "true", 2), ("bridge", "ip addr flush dev eth0", 1)];
    for (number, (binding, before, taps)) in cases.iter().enumerate() {
        let mut chain = pod(&world, &format!("pod{number}"));
        chain.pod().sh(before).assert_ok();
        wire(&mut chain, tapvisor(&interface(binding)));
        settle(&chain, *taps);
        let second = chain.second_attachment("net1", &[tapvisor(&interface(binding))]);
        let wired = chain.pod().snapshot();
        for verb in ["ADD", "CHECK", "DEL"] {
            second.call(verb, 0, chain.result.as_ref()).assert_ok();
        }
        wired.assert_same(&chain.pod().snapshot());
        chain.call("CHECK", 1, chain.result.as_ref()).assert_ok();
        chain.call("DEL", 1, chain.result.as_ref()).assert_ok();
    }
}

fn refused() {
    let world = world();
    let mut chain = pod(&world, "pod");
    chain.plugins.push(request());
    let good = json!({"name": "default", "podInterface": "eth0", "binding": "masquerade"});
    let cases = [
        (
            json!({"name": "blue", "podInterface": "net7", "binding": "bridge"}),
            "net7 is not in the namespace: attached after",
        ),
        (json!({"name": "blue", "podInterface": "lo", "binding": "bridge"}), "lo has no Ethernet address"),
        (json!({"name": "blue", "podInterface": "lo", "binding": "nonsense"}), "interfaces[1].binding"),
    ];
    for (second, words) in cases {
        chain.plugins[1]["wiring"]["interfaces"] = json!([good, second]);
        fails(&chain, 7, words);
    }
    chain.plugins[1]["wiring"]["interfaces"] = json!([good]);
    chain.plugins[1]["wiring"]["interfaces"][0]["cidr"] = "10.244.1.0/28".into();
    fails(&chain, 7, "subnet 10.244.1.0/28 overlaps address 10.244.1.");
    chain.plugins[1]["wiring"]["interfaces"] = json!([good]);
    chain.pod().sh("ip link add svc-eth0 type veth peer name x").assert_ok();
    fails(&chain, 7, "svc-eth0 is there already");
}

fn queues_and_mtu() {
    let world = world();
    for mtu in [1280, 1500, 9000] {
        let mut primary = network("bridge", Stack::Dual);
        primary["bridge"] = format!("br{mtu}").into();
        primary["mtu"] = mtu.into();
        let mut chain = Chain::new(&world, &format!("pod{mtu}"), &[primary]);
        chain.add();
        let interface = json!({"name": "default", "podInterface": "eth0", "binding": "masquerade", "queues": 2});
        wire(&mut chain, tapvisor(&json!([interface])));
        let link = chain.pod().run(&["ip", "-j", "-d", "link", "show", "k6t-eth0"]).json()[0].clone();
        let data = &link["linkinfo"]["info_data"];
        assert_eq!((&link["mtu"], &data["multi_queue"], &data["persist"]), (&json!(mtu), &json!(true), &json!(true)));
        chain.check();
    }
}

fn advertised_routes() {
    let world = world();
    // A pod that is a neighbour of the uplink's router and hears its advertisements.
    let mut chain = Chain::new(&world, "pod", &[network("macvlan", Stack::V4)]);
    chain.add();
    let heard = || {
        world.named("outside").sh("true").assert_ok();
        let routes = chain.pod().run(&["ip", "-6", "route", "show", "default"]).text();
        routes.contains("proto ra").then_some(())
    };
    let advertise = "import socket,struct
s=socket.socket(socket.AF_INET6,socket.SOCK_RAW,socket.IPPROTO_ICMPV6)
s.setsockopt(socket.IPPROTO_IPV6,socket.IPV6_MULTICAST_HOPS,255)
prefix=struct.pack('!BBBBIII16s',3,4,64,0xc0,9000,9000,0,socket.inet_pton(socket.AF_INET6,'2001:db8:1::'))
s.sendto(struct.pack('!BBHBBHII',134,0,0,64,0,9000,0,0)+prefix,('ff02::1',0,0,socket.if_nametoindex('wan0')))";
    tests::wait_for("the router's advertisement in the pod", std::time::Duration::from_secs(60), || {
        world.named("outside").run(&["python3", "-c", advertise]).assert_ok();
        heard()
    });
    let accept_ra = || chain.pod().run(&["cat", "/proc/sys/net/ipv6/conf/eth0/accept_ra"]).text().trim().to_owned();
    let earlier = accept_ra();
    let mut wired = chain.second_attachment("eth0", &[network("macvlan", Stack::V4), request()]);
    wired.result.clone_from(&chain.result);
    wired.call("ADD", 1, chain.result.as_ref()).assert_ok();
    assert!(heard().is_some(), "the pod lost its IPv6 default route");
    assert_eq!(accept_ra(), "2");
    wired.call("CHECK", 1, chain.result.as_ref()).assert_ok();
    wired.call("DEL", 1, chain.result.as_ref()).assert_ok();
    assert_eq!(accept_ra(), earlier);
    assert!(heard().is_some(), "the pod lost its IPv6 default route with DEL");
}

fn trials_by_hand() {
    let world = world();
    let mut chain = pod(&world, "pod");
    chain.plugins.push(request());
    let before = chain.pod().snapshot();
    let (previous, netns) = (chain.result.clone(), chain.pod().path());
    let plan = chain.call_with("ADD", 1, previous.as_ref(), &netns, &["--dry-run"]).text();
    let first = "ip tuntap add dev k6t-eth0 mode tap vnet_hdr user 107 group 107\n";
    assert!(plan.starts_with(first) && plan.contains("dnat ip to 10.0.2.2"), "{plan}");
    before.assert_same(&chain.pod().snapshot());
    let file = "/run/record.json";
    chain.call_with("ADD", 1, previous.as_ref(), &netns, &["--record", file]).assert_ok();
    let record: Value = serde_json::from_slice(&std::fs::read(world.path(file)).expect("a record")).expect("JSON");
    let kinds: Vec<_> = record
        .as_array()
        .expect("steps")
        .iter()
        .map(|step| {
            step.as_str()
                .map_or_else(|| step.as_object().expect("a step").keys().next().expect("a kind").clone(), str::to_owned)
        })
        .collect();
    for kind in ["openTun", "tun", "send", "writeFile"] {
        assert!(kinds.iter().any(|seen| seen == kind), "no {kind} among {kinds:?}");
    }
    chain.check();
}

/// A runtime lists a sandbox only once its network is there, so GC may not know of it.
fn collected_meanwhile() {
    let world = world();
    let nothing_lives = json!({"type": "tapvisor", "cniVersion": "1.1.0", "cni.dev/valid-attachments": []});
    let collector = Chain::new(&world, "collector", &[network("bridge", Stack::Dual), nothing_lives]);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let collected = scope.spawn(|| {
            let mut times = 0;
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                collector.call("GC", 1, None).assert_ok();
                times += 1;
            }
            times
        });
        for number in 0..12 {
            let mut chain = pod(&world, &format!("pod{number}"));
            wire(&mut chain, request());
            chain.check();
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(collected.join().expect("every GC succeeds") >= 12, "GC ran all the time");
    });
}
