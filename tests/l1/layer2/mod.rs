//! `tapvisor-bridge` on the real kernel: traffic, also with the reference plugin, and faults.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Ns, Outside, Ran, World, dist_file, trial, wait_for};

const OURS: &str = "/opt/cni/bin/tapvisor-bridge";
const REFERENCE: &str = "/usr/lib/cni/bridge";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: L2-JOIN
        trial("a pod of the reference bridge and one of ours share a segment", share_a_segment),
        // spec: L2-MASQ
        trial("masqueraded pods reach the outside in both families", masquerade),
        // spec: L2-GUARD
        trial("a checked pod that changes its Ethernet address is cut off", spoof_check),
        // spec: L2-GUARD
        trial("isolated pods reach the gateway and not each other", isolation),
        // spec: L2-CONF
        trial("a network that cannot be joined is refused by name", faults),
        // spec: L2-DEL
        trial("DEL after the namespace has vanished leaves nothing", vanished),
        // spec: L2-DEL
        trial("a bridge removed underneath is noticed, deleted and made again", bridge_removed),
        // spec: L2-CONF
        trial("a link with the name of the host's end stays as it is", collision),
        // spec: L2-CABLE
        trial("pods on cables of their own reach each other and the outside", cables),
        // spec: L2-UPLINK-1
        trial("an uplink joins a segment to its network until the last DEL", uplink),
        // spec: L2-UPLINK-1
        trial("an uplink that is unplugged or gone keeps nothing from DEL", uplink_gone),
        // spec: L2-UPLINK-2
        trial("an uplink in use is refused by name, and stays as it is", uplink_refused),
        // spec: L2-MCAST
        trial("a group reaches those that joined it alone, or all without snooping", multicast),
        // spec: L2-GROUPS
        trial("LLDP passes a bridge whose groupFwdMask has its bit, and no other", reserved_group),
        // spec: L2-AGEING
        trial("a station that is silent for the ageing time is forgotten", ageing),
        // spec: L2-MTU
        trial("frames of 9000 bytes pass between pods, and to the gateway", jumbo),
        // spec: L2-SHARED-1
        trial("an ADD that fails takes no bridge away from another's pod", shared_failure),
    ]
}

fn world() -> World {
    let world = World::new();
    world.install(&dist_file("tapvisor-bridge"), OURS);
    world
}

fn conf(own: &Value) -> Value {
    let mut conf = json!({"cniVersion": "1.0.0", "name": "blue", "type": "tapvisor-bridge", "bridge": "blue0", "isDefaultGateway": true,
        "ipam": {"type": "host-local", "dataDir": "/run/blue",
            "ranges": [[{"subnet": "10.77.1.0/24"}], [{"subnet": "fd77:1::/64"}]]}});
    for (key, value) in own.as_object().expect("an object") {
        conf[key] = value.clone();
    }
    conf
}

fn call(pod: &Ns<'_>, plugin: &str, verb: &str, conf: &Value) -> Ran {
    call_in(pod.world(), (pod.name(), &pod.path()), plugin, verb, conf)
}

/// The same for a namespace that may be gone.
fn call_in(world: &World, (name, path): (&str, &str), plugin: &str, verb: &str, conf: &Value) -> Ran {
    let script = format!(
        "CNI_COMMAND={verb} CNI_CONTAINERID=c-{name} CNI_IFNAME=eth0 CNI_NETNS={path} CNI_PATH=/opt/cni/bin:/usr/lib/cni {plugin} <<'.'\n{conf}\n.\n"
    );
    world.sh(&script)
}

/// ADD, with the result in the configuration for later calls.
fn add(pod: &Ns<'_>, plugin: &str, conf: &Value) -> Value {
    let mut conf = conf.clone();
    conf["prevResult"] = call(pod, plugin, "ADD", &conf).json();
    conf
}

/// The address of a pod, by IP version.
fn address(conf: &Value, is_ipv4: bool) -> String {
    let ips = conf["prevResult"]["ips"].as_array().expect("addresses");
    let all =
        ips.iter().map(|ip| ip["address"].as_str().expect("an address").split('/').next().expect("one").to_owned());
    all.into_iter().find(|address| address.contains(':') != is_ipv4).expect("an address of the family")
}

fn reaches(pod: &Ns<'_>, address: &str) -> bool {
    pod.run(&["ping", "-c", "1", "-W", "2", address]).code() == Some(0)
}

fn refused(pod: &Ns<'_>, conf: &Value) -> String {
    let ran = call(pod, OURS, "ADD", conf);
    assert_eq!(ran.code(), Some(1), "{}", ran.account());
    serde_json::from_str::<Value>(&ran.stdout()).expect("an error document")["msg"].to_string()
}

fn share_a_segment() {
    let world = world();
    let (one, two) = (world.ns("one"), world.ns("two"));
    let theirs = conf(&json!({"type": "bridge"}));
    let theirs = add(&one, REFERENCE, &theirs);
    let ours = add(&two, OURS, &conf(&json!({})));
    for is_ipv4 in [true, false] {
        assert_ne!(address(&ours, is_ipv4), address(&theirs, is_ipv4), "one folder, one pool");
        assert!(reaches(&one, &address(&ours, is_ipv4)) && reaches(&two, &address(&theirs, is_ipv4)));
    }
    call(&two, OURS, "CHECK", &ours).assert_ok();
    call(&one, REFERENCE, "CHECK", &theirs).assert_ok();
    call(&two, OURS, "DEL", &ours).assert_ok();
    assert!(reaches(&one, "10.77.1.1"));
    call(&one, REFERENCE, "DEL", &theirs).assert_ok();
    assert_eq!(world.sh("ls /run/blue/blue | grep -v '^l' || true").text(), "");
}

fn masquerade() {
    let world = world();
    let pod = world.ns("pod");
    let plain = add(&pod, OURS, &conf(&json!({})));
    // Forwarding deletes routes of router advertisements, unless they are accepted in spite of it.
    assert!(world.run(&["ip", "-6", "route", "show", "default"]).text().contains("proto ra"));
    assert!(!reaches(&pod, Outside::V4), "the outside has no way back to the pod");
    call(&pod, OURS, "DEL", &plain).assert_ok();
    let masqueraded = add(&pod, OURS, &conf(&json!({"ipMasq": true})));
    assert!(reaches(&pod, Outside::V4) && reaches(&pod, Outside::V6));
    call(&pod, OURS, "CHECK", &masqueraded).assert_ok();
    call(&pod, OURS, "DEL", &conf(&json!({}))).assert_ok();
    let sets = world.run(&["nft", "-j", "list", "table", "inet", "tapvisor-bridge"]).text();
    assert!(!sets.contains("\"elem\""), "{sets}");
}

fn spoof_check() {
    let world = world();
    let pod = world.ns("pod");
    let made = add(&pod, OURS, &conf(&json!({"macspoofchk": true})));
    assert!(reaches(&pod, "10.77.1.1") && reaches(&pod, "fd77:1::1"));
    let own = pod.run(&["ip", "-j", "link", "show", "eth0"]).json()[0]["address"].as_str().expect("one").to_owned();
    pod.run(&["ip", "link", "set", "eth0", "address", "02:00:00:00:66:66"]).assert_ok();
    assert!(!reaches(&pod, "10.77.1.1") && !reaches(&pod, "fd77:1::1"));
    pod.run(&["ip", "link", "set", "eth0", "address", &own]).assert_ok();
    assert!(reaches(&pod, "10.77.1.1"));
    call(&pod, OURS, "DEL", &made).assert_ok();
}

fn isolation() {
    let world = world();
    let (one, two) = (world.ns("one"), world.ns("two"));
    let isolated = conf(&json!({"portIsolation": true}));
    let (first, second) = (add(&one, OURS, &isolated), add(&two, OURS, &isolated));
    assert!(reaches(&one, "10.77.1.1") && reaches(&two, "fd77:1::1"));
    assert!(!reaches(&one, &address(&second, true)) && !reaches(&two, &address(&first, false)));
}

/// A link of the host that is down, and a station at its other end.
fn station(world: &World) -> Ns<'_> {
    let station = world.ns("station");
    world
        .sh("ip link add lan0 type veth peer name eth0 netns station; ip -n station address add 10.77.1.250/24 dev eth0
            ip -n station link set eth0 up")
        .assert_ok();
    station
}

/// What other people's tools say of the link.
fn lan0(world: &World) -> String {
    let fields = ".[0] | [.flags, .mtu, .master, .address, .promiscuity, .addr_info]";
    world.sh(&format!("ip -j -d address show lan0 | jq -c '{fields}'")).text()
}

fn uplink() {
    let world = world();
    let station = station(&world);
    let (one, two) = (world.ns("one"), world.ns("two"));
    let before = lan0(&world);
    let conf = conf(&json!({"uplink": "lan0"}));
    let (first, second) = (add(&one, OURS, &conf), add(&two, OURS, &conf));
    wait_for("a pod to reach the station", Duration::from_secs(60), || reaches(&one, "10.77.1.250").then_some(()));
    assert!(reaches(&station, &address(&second, true)));
    for (pod, made) in [(&one, &first), (&two, &second)] {
        call(pod, OURS, "CHECK", made).assert_ok();
    }
    call(&one, OURS, "DEL", &first).assert_ok();
    assert!(reaches(&two, "10.77.1.250"), "another attachment has the uplink yet");
    call(&two, OURS, "DEL", &second).assert_ok();
    assert_eq!((lan0(&world), left(&world)), (before, String::new()));
    // One that an administrator made a port stays one.
    world.sh("ip link set lan0 master blue0 up").assert_ok();
    let made = add(&one, OURS, &conf);
    call(&one, OURS, "DEL", &made).assert_ok();
    assert!(lan0(&world).contains("\"blue0\""), "{}", lan0(&world));
    assert_eq!(left(&world), "");
}

fn uplink_gone() {
    let world = world();
    let station = station(&world);
    let (one, two) = (world.ns("one"), world.ns("two"));
    let conf = conf(&json!({"uplink": "lan0"}));
    let first = add(&one, OURS, &conf);
    station.run(&["ip", "link", "set", "eth0", "down"]).assert_ok();
    let second = add(&two, OURS, &conf);
    assert!(reaches(&one, &address(&second, true)), "the segment is one without its uplink");
    call(&one, OURS, "CHECK", &first).assert_ok();
    world.sh("ip link delete lan0").assert_ok();
    let checked = call(&one, OURS, "CHECK", &first);
    assert!(checked.stdout().contains("uplink lan0 is not there"), "{}", checked.account());
    let status = call(&one, OURS, "STATUS", &{
        let mut conf = conf.clone();
        conf["cniVersion"] = json!("1.1.0");
        conf
    });
    assert!(status.stdout().contains("uplink lan0 is not on the host"), "{}", status.account());
    assert!(refused(&world.ns("three"), &conf).contains("uplink lan0 is not on the host"));
    for (pod, made) in [(&one, &first), (&two, &second)] {
        call(pod, OURS, "DEL", made).assert_ok();
    }
    assert_eq!(left(&world), "");
}

fn uplink_refused() {
    let world = world();
    let _station = station(&world);
    let pod = world.ns("pod");
    let conf = |own: &Value| {
        let mut conf = conf(&json!({"uplink": "lan0"}));
        own.as_object().expect("an object").iter().for_each(|(key, value)| conf[key] = value.clone());
        conf
    };
    world.sh("ip link set lan0 up; ip address add 198.51.100.7/24 dev lan0").assert_ok();
    let before = lan0(&world);
    let refusal = refused(&pod, &conf(&json!({})));
    assert!(refusal.contains("uplink lan0 has address 198.51.100.7/24"), "{refusal}");
    assert_eq!((lan0(&world), left(&world)), (before, String::new()));
    world.sh("ip address delete 198.51.100.7/24 dev lan0; ip route add 198.51.100.0/24 dev lan0").assert_ok();
    let refusal = refused(&pod, &conf(&json!({})));
    assert!(refusal.contains("uplink lan0 has route 198.51.100.0/24 dev lan0"), "{refusal}");
    world.sh("ip route delete 198.51.100.0/24 dev lan0; ip link set lan0 mtu 1400").assert_ok();
    let refusal = refused(&pod, &conf(&json!({})));
    assert!(refusal.contains("mtu 1500: uplink lan0 passes at most 1400 bytes"), "{refusal}");
    world.sh("ip link add other0 type bridge; ip link set lan0 master other0").assert_ok();
    let refusal = refused(&pod, &conf(&json!({"mtu": 1400})));
    assert!(refusal.contains("uplink lan0 is in other0 already"), "{refusal}");
    assert_eq!(left(&world), "");
}

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 77, 0, 1);

/// Sends frames to a group until what comes of them is as it must be; says how often they came to who joined and to who did not.
fn group_frames(sender: &Ns<'_>, joined: &Ns<'_>, bystander: &Ns<'_>, settled: impl Fn(u64, u64) -> bool) {
    let count =
        "nft add table netdev t; nft add chain netdev t c '{ type filter hook ingress device eth0 priority 0; }'
        nft add rule netdev t c ip daddr 239.77.0.1 counter";
    [joined, bystander].into_iter().for_each(|pod| pod.sh(count).assert_ok());
    let came = |pod: &Ns<'_>| {
        let counted =
            pod.sh("nft -j list table netdev t | jq '[.nftables[].rule.expr[]?.counter.packets | numbers] | add'");
        counted.text().trim().parse::<u64>().expect("nft counts")
    };
    let address = |pod: &Ns<'_>| {
        let links = pod.run(&["ip", "-j", "-4", "addr", "show", "dev", "eth0"]).json();
        links[0]["addr_info"][0]["local"].as_str().expect("an address").parse::<Ipv4Addr>().expect("one of IPv4")
    };
    let from = address(joined);
    let _member = joined.enter(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5000)).expect("a port");
        socket.join_multicast_v4(&GROUP, &from).expect("a group");
        socket
    });
    let socket = sender.enter(|| UdpSocket::bind((address(sender), 0)).expect("a port"));
    wait_for("the group's frames to come where they must alone", Duration::from_secs(90), || {
        let before = (came(joined), came(bystander));
        for _ in 0..5 {
            socket.send_to(b"frame", (GROUP, 5000)).expect("a route to the group");
        }
        std::thread::sleep(Duration::from_millis(300));
        settled(came(joined) - before.0, came(bystander) - before.1).then_some(())
    });
}

fn multicast() {
    for (setting, settled) in [
        (
            json!({"multicastSnooping": true, "multicastQuerier": true}),
            (|joined, other| joined == 5 && other == 0) as fn(u64, u64) -> bool,
        ),
        (json!({"multicastSnooping": false}), |joined, other| joined == 5 && other == 5),
    ] {
        let world = world();
        let pods = ["one", "two", "three"].map(|name| world.ns(name));
        let conf = conf(&setting);
        let made = pods.each_ref().map(|pod| add(pod, OURS, &conf));
        let [one, two, three] = &pods;
        group_frames(one, two, three, settled);
        call(one, OURS, "CHECK", &made[0]).assert_ok();
    }
}

/// Sends a frame of LLDP (IEEE 802.1AB: group 01:80:c2:00:00:0e, type 0x88cc).
const LLDP: &str = "python3 -c \"
import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('eth0', 0))
own = bytes.fromhex(open('/sys/class/net/eth0/address').read().strip().replace(':', ''))
s.send(bytes.fromhex('0180c200000e') + own + bytes.fromhex('88cc') + bytes(46))\"";

fn reserved_group() {
    for (own, passes) in [(json!({"groupFwdMask": 0x4000}), true), (json!({}), false)] {
        let world = world();
        let (one, two) = (world.ns("one"), world.ns("two"));
        let conf = conf(&own);
        let made = add(&one, OURS, &conf);
        let second = add(&two, OURS, &conf);
        two.sh(
            "nft add table netdev t; nft add chain netdev t c '{ type filter hook ingress device eth0 priority 0; }'
            nft add rule netdev t c ether daddr 01:80:c2:00:00:0e counter",
        )
        .assert_ok();
        one.sh(LLDP).assert_ok();
        let count = || {
            let count = "nft -j list table netdev t | jq '[.nftables[].rule.expr[]?.counter.packets | numbers] | add'";
            two.sh(count).text().trim().to_owned()
        };
        if passes {
            wait_for("the frame to come", Duration::from_secs(60), || (count() == "1").then_some(()));
        }
        // What was sent after it on the same way has come.
        assert!(reaches(&one, &address(&second, true)));
        assert_eq!(count(), if passes { "1" } else { "0" });
        call(&one, OURS, "CHECK", &made).assert_ok();
    }
}

fn ageing() {
    let world = world();
    let pod = world.ns("pod");
    let made = add(&pod, OURS, &conf(&json!({"ageingTimeSeconds": 2})));
    let mac = pod.run(&["ip", "-j", "link", "show", "eth0"]).json()[0]["address"].as_str().expect("one").to_owned();
    let is_known = || {
        let learned = "bridge -j fdb show br blue0 | jq -r '.[] | select(.state != \"permanent\") | .mac'";
        world.sh(learned).text().contains(&mac)
    };
    wait_for("the bridge to learn where the pod is", Duration::from_secs(60), || {
        let _ = reaches(&pod, "10.77.1.1");
        is_known().then_some(())
    });
    pod.run(&["ip", "link", "set", "eth0", "arp", "off"]).assert_ok();
    pod.sh("ip -6 address flush dev eth0; ip -4 address flush dev eth0").assert_ok();
    wait_for("the bridge to forget it", Duration::from_secs(120), || (!is_known()).then_some(()));
    call(&pod, OURS, "DEL", &made).assert_ok();
}

fn jumbo() {
    let world = world();
    let (one, two) = (world.ns("one"), world.ns("two"));
    let large = conf(&json!({"mtu": 9000}));
    add(&one, OURS, &large);
    let second = add(&two, OURS, &large);
    // Whole: they must not be fragmented. What an IP and an ICMP header leave of 9000 bytes.
    for (address, bytes) in [(address(&second, true), "8972"), (address(&second, false), "8952")] {
        one.run(&["ping", "-c", "1", "-W", "5", "-M", "do", "-s", bytes, &address]).assert_ok();
    }
    for (address, bytes) in [("10.77.1.1", "8972"), ("fd77:1::1", "8952")] {
        two.run(&["ping", "-c", "1", "-W", "5", "-M", "do", "-s", bytes, address]).assert_ok();
    }
    assert!(!one.run(&["ping", "-c", "1", "-W", "2", "-M", "do", "-s", "8973", "10.77.1.1"]).is_ok());
}

/// What attachments leave on the host: links, reservations, records, elements of nft sets.
fn left(world: &World) -> String {
    let sets = world.sh("nft -j list ruleset | jq -c '.nftables[].set.elem // empty'").text();
    let links = world.sh("ip -br link | grep -o '^veth[0-9a-f]*' || true").text();
    let files = world.sh("find /run/blue /run/tapvisor -type f ! -name lock ! -name 'last_reserved*' || true").text();
    format!("{sets}{links}{files}")
}

fn vanished() {
    let world = world();
    let pod = world.ns("pod");
    let conf = conf(&json!({"ipMasq": true, "macspoofchk": true}));
    add(&pod, OURS, &conf);
    assert_eq!(left(&world).lines().count(), 3 + 1 + 3 + 1, "{}", left(&world));
    let (name, path) = (pod.name().to_owned(), pod.path());
    pod.delete();
    call_in(&world, (&name, &path), OURS, "DEL", &conf).assert_ok();
    assert_eq!(left(&world), "");
}

fn bridge_removed() {
    let world = world();
    let (one, two) = (world.ns("one"), world.ns("two"));
    let conf = conf(&json!({}));
    let made = add(&one, OURS, &conf);
    world.sh("ip link delete blue0").assert_ok();
    let checked = call(&one, OURS, "CHECK", &made);
    assert!(checked.stdout().contains("bridge blue0 is not there"), "{}", checked.account());
    add(&two, OURS, &conf);
    assert!(reaches(&two, "10.77.1.1") && !reaches(&one, "10.77.1.1"));
    call(&one, OURS, "DEL", &made).assert_ok();
    call(&two, OURS, "DEL", &conf).assert_ok();
    assert_eq!(left(&world), "");
}

fn collision() {
    let world = world();
    let pod = world.ns("pod");
    let made = add(&pod, OURS, &conf(&json!({})));
    let end = made["prevResult"]["interfaces"][1]["name"].as_str().expect("the host's end").to_owned();
    call(&pod, OURS, "DEL", &made).assert_ok();
    world.sh(&format!("ip link add {end} type ifb")).assert_ok();
    let refusal = refused(&pod, &conf(&json!({})));
    assert!(refusal.contains(&format!("{end}, the name of the host's end, is on the host already")), "{refusal}");
    assert_eq!(left(&world).trim(), end, "nothing but the other's link");
}

fn cables() {
    let world = world();
    let (one, two) = (world.ns("one"), world.ns("two"));
    let mut conf = conf(&json!({"pointToPoint": true, "ipMasq": true}));
    conf.as_object_mut().expect("an object").remove("bridge");
    let (first, second) = (add(&one, OURS, &conf), add(&two, OURS, &conf));
    assert_eq!(world.run(&["ip", "-j", "link", "show", "type", "bridge"]).text().trim(), "[]");
    for (pod, other) in [(&one, &second), (&two, &first)] {
        for is_ipv4 in [true, false] {
            assert!(reaches(pod, &address(other, is_ipv4)), "the other pod, {}", address(other, is_ipv4));
        }
        assert!(reaches(pod, "10.77.1.1") && reaches(pod, "fd77:1::1"), "the host");
        assert!(reaches(pod, Outside::V4) && reaches(pod, Outside::V6), "the outside");
    }
    // A pod sees the other's own address, not the host's.
    let seen = one.sh(&format!(
        "timeout 20 tcpdump -nli eth0 -c 1 'icmp[icmptype] == icmp-echo' 2>/dev/null & sleep 1; nsenter --net={} ping -c 3 -i 0.3 {} >/dev/null; wait",
        two.path(),
        address(&first, true)
    ));
    assert!(
        seen.text().contains(&format!("IP {} > {}", address(&second, true), address(&first, true))),
        "{}",
        seen.account()
    );
    for (pod, made) in [(&one, &first), (&two, &second)] {
        call(pod, OURS, "CHECK", made).assert_ok();
    }
    let end = first["prevResult"]["interfaces"][0]["name"].as_str().expect("the host's end");
    world.sh(&format!("ip route del {} dev {end}", address(&first, true))).assert_ok();
    let checked = call(&one, OURS, "CHECK", &first);
    assert!(checked.stdout().contains("the host has no route"), "{}", checked.account());
    for (pod, made) in [(&one, &first), (&two, &second)] {
        call(pod, OURS, "DEL", made).assert_ok();
    }
    assert_eq!(left(&world), "");
}

/// Twenty calls at once on one bridge: those of one network can never make its gateway, those of the other need none.
fn shared_failure() {
    let world = world();
    // An IPv6 address cannot be added to a link that has no IPv6: the gateway fails after the bridge is there.
    world.sh("sysctl -qw net.ipv6.conf.default.disable_ipv6=1").assert_ok();
    let failing = conf(&json!({"name": "red"}));
    let mut plain = conf(&json!({"ipam": {}}));
    plain["isDefaultGateway"] = json!(false);
    for round in 0..2 {
        let pods: Vec<_> = (0..20).map(|number| world.ns(&format!("p{round}-{number}"))).collect();
        let mut script = String::new();
        for (number, pod) in pods.iter().enumerate() {
            let (conf, path, name) = (if number % 2 == 0 { &failing } else { &plain }, pod.path(), pod.name());
            script.push_str(&format!(
                "(CNI_COMMAND=ADD CNI_CONTAINERID=c-{name} CNI_IFNAME=eth0 CNI_NETNS={path} CNI_PATH=/opt/cni/bin {OURS} >/tmp/{name} 2>&1 <<'.' && echo 0 >/tmp/{name}.code || echo 1 >/tmp/{name}.code\n{conf}\n.\n) &\n"
            ));
        }
        world.sh(&format!("{script}wait")).assert_ok();
        let ports = world.sh("ip -br link show master blue0 | wc -l").text();
        let codes = |parity: usize| {
            let codes = pods
                .iter()
                .skip(parity)
                .step_by(2)
                .map(|pod| world.sh(&format!("cat /tmp/{}.code", pod.name())).text());
            codes.map(|code| code.trim().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!((codes(0), codes(1)), (vec!["1".to_owned(); 10], vec!["0".to_owned(); 10]), "round {round}");
        assert_eq!(ports.trim(), "10", "round {round}");
        for (number, pod) in pods.iter().enumerate() {
            call(pod, OURS, "DEL", if number % 2 == 0 { &failing } else { &plain }).assert_ok();
        }
        assert_eq!(left(&world), "");
        world.sh("ip link delete blue0").assert_ok();
    }
}

fn faults() {
    let world = world();
    let (one, two) = (world.ns("one"), world.ns("two"));
    world.sh("ip link add blue0 type ifb").assert_ok();
    assert!(refused(&one, &conf(&json!({}))).contains("blue0 is on the host already, but is no bridge"));
    world.sh("ip link del blue0").assert_ok();
    let small = json!({"type": "host-local", "dataDir": "/run/small", "ranges": [[{"subnet": "10.77.9.0/30"}]]});
    add(&one, OURS, &conf(&json!({"ipam": small.clone()})));
    assert!(refused(&two, &conf(&json!({"ipam": small}))).contains("no address is free in 10.77.9.1 to 10.77.9.2"));
    assert!(refused(&two, &conf(&json!({}))).contains("10.77.9.1/30 instead of the gateway's 10.77.1.1/24"));
    assert!(refused(&one, &conf(&json!({"forceAddress": true}))).contains("eth0 is in the pod already"));
    add(&two, OURS, &conf(&json!({"forceAddress": true})));
    let has_vlans = world.sh("ip -d -j link show blue0 | grep -q vlan_default_pvid").code() == Some(0);
    let three = world.ns("three");
    let expected = if has_vlans { "has no VLAN filtering" } else { "CONFIG_BRIDGE_VLAN_FILTERING" };
    let refusal = refused(&three, &conf(&json!({"vlan": 7})));
    assert!(refusal.contains(expected), "{refusal}");
}
