//! The reference plugins, by release: how each is configured, broken and asked.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::subject::{Build, Disturbance, Place, Role, RuntimeOption, Subject};
use super::{bridge, in_pod, on_node, option, plain, ptp};

const UP_TO_1_0: &[&str] = &["0.3.1", "0.4.0", "1.0.0"];
const UP_TO_1_1: &[&str] = &["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

const EXHAUSTED: &str = "mkdir -p /var/lib/cni/networks/$NETWORK; \
    for i in $(seq 1 254); do echo taken >/var/lib/cni/networks/$NETWORK/10.77.1.$i; done";

pub(super) fn subjects(build: Build) -> Vec<Subject> {
    [bridge_network, bridge_without_addresses, ptp_network, macvlan, host_local, tuning, portmap, bandwidth]
        .iter()
        .map(|subject| subject(build))
        .collect()
}

fn named(plugin: &'static str, note: &str, build: Build, role: Role, conf: Value) -> Subject {
    let (release, versions) = match build {
        Build::V1_9_1 => ("1.9.1", UP_TO_1_1),
        _ => ("1.1.1", UP_TO_1_0),
    };
    Subject { plugin, ..plain(format!("{plugin}{note} {release}"), build, role, versions, conf) }
}

/// Both families from host-local, with default routes.
pub(super) fn addresses() -> Value {
    json!({"type": "host-local", "ranges": [[{"subnet": "10.77.1.0/24"}], [{"subnet": "fd77:1::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]})
}

/// What breaks any pod that has addresses and a default route, and what breaks a network beyond.
pub(super) fn with_pod_breakages<const N: usize>(more: [Disturbance; N]) -> Vec<Disturbance> {
    let of_any = [
        in_pod("interface gone", "ip link del eth0"),
        in_pod("interface down", "ip link set eth0 down"),
        in_pod("interface's mac changed", "ip link set eth0 address 02:00:00:00:66:66"),
        in_pod("address gone", "ip -4 addr flush dev eth0"),
        in_pod("default route gone", "ip -4 route del default"),
    ];
    of_any.into_iter().chain(more).collect()
}

fn bridge_network(build: Build) -> Subject {
    let conf = json!({"type": "bridge", "bridge": "suite0", "isGateway": true, "ipam": addresses()});
    Subject {
        shared: Some("suite0"),
        occupied: Some("eth0"),
        breakages: with_pod_breakages([
            on_node("node's end not in the bridge", "ip link set $HOSTIF nomaster"),
            on_node("bridge gone", "ip link del suite0"),
        ]),
        tolerances: vec![
            on_node(
                "bridge's mac changed by another port",
                "ip link add port0 address 02:00:00:00:00:00 type veth peer name port1 && ip link set port0 master suite0 up",
            ),
            on_node("node's end's mac changed by udev", "ip link set $HOSTIF address 02:00:00:00:77:77"),
            in_pod("extra route", "ip route add 192.0.2.0/24 dev eth0"),
        ],
        uprootings: vec![on_node("with the bridge gone", "ip link del suite0")],
        changed_conf: json!({"bridge": "suite9", "ipam": {"ranges": [[{"subnet": "10.78.9.0/24"}]]}}),
        unready: vec![on_node("pool exhausted", EXHAUSTED)],
        runtime_options: vec![
            requested_mac(""),
            RuntimeOption {
                what: "mac from the runtime before mac from CNI_ARGS",
                ..requested_mac("IgnoreUnknown=1;MAC=02:00:00:00:77:02")
            },
            option(
                "ips",
                json!({"capabilities": {"ips": true}, "runtimeConfig": {"ips": ["10.77.1.77"]}}),
                "",
                Place::Pod,
                "ip addr show eth0 | grep -q 10.77.1.77/24",
            ),
        ],
        ..named("bridge", "", build, Role::Main, conf)
    }
}

fn bridge_without_addresses(build: Build) -> Subject {
    Subject {
        shared: Some("suite0"),
        occupied: Some("eth0"),
        breakages: vec![
            in_pod("interface gone", "ip link del eth0"),
            on_node("node's end not in the bridge", "ip link set $HOSTIF nomaster"),
        ],
        tolerances: vec![in_pod("layer 2 without IPAM", "true")],
        exempt: BTreeMap::from([(12, "layer 2: it calls no IPAM plugin"), (18, "layer 2: nothing can run out")]),
        ..named("bridge", " layer 2", build, Role::Main, json!({"type": "bridge", "bridge": "suite0"}))
    }
}

fn ptp_network(build: Build) -> Subject {
    Subject {
        occupied: Some("eth0"),
        breakages: vec![
            in_pod("interface gone", "ip link del eth0"),
            in_pod("interface down", "ip link set eth0 down"),
            in_pod("address gone", "ip -4 addr flush dev eth0"),
            in_pod("default route gone", "ip -4 route del default"),
            on_node("node's end down", "ip link set $HOSTIF down"),
        ],
        tolerances: vec![
            on_node("node's end's mac changed by udev", "ip link set $HOSTIF address 02:00:00:00:77:77"),
            in_pod("extra route", "ip route add 192.0.2.0/24 via 10.77.1.1"),
        ],
        changed_conf: json!({"ipam": {"ranges": [[{"subnet": "10.78.9.0/24"}]]}}),
        unready: vec![on_node("pool exhausted", EXHAUSTED)],
        exempt: BTreeMap::from([(15, "the node has one route per address: two pods with one address cannot be")]),
        ..named("ptp", "", build, Role::Main, json!({"type": "ptp", "ipam": addresses()}))
    }
}

fn macvlan(build: Build) -> Subject {
    let conf = json!({"type": "macvlan", "master": "uplink0", "mode": "bridge", "ipam": addresses()});
    Subject {
        node: "ip link add uplink0 type veth peer name uplink1 && ip link set uplink0 up && ip link set uplink1 up",
        occupied: Some("eth0"),
        breakages: with_pod_breakages([]),
        tolerances: vec![in_pod("extra route", "ip route add 192.0.2.0/24 via 10.77.1.1")],
        uprootings: vec![on_node("with the master gone", "ip link del uplink0")],
        changed_conf: json!({"mode": "private", "ipam": {"ranges": [[{"subnet": "10.78.9.0/24"}]]}}),
        unready: vec![
            on_node("pool exhausted", EXHAUSTED),
            on_node("uplink gone", "ip link del uplink0 2>/dev/null || true"),
        ],
        runtime_options: vec![requested_mac("")],
        ..named("macvlan", "", build, Role::Main, conf)
    }
}

fn requested_mac(args: &'static str) -> RuntimeOption {
    let conf = json!({"capabilities": {"mac": true}, "runtimeConfig": {"mac": "02:00:00:00:77:01"}});
    option("mac", conf, args, Place::Pod, "ip link show eth0 | grep -q 02:00:00:00:77:01")
}

fn host_local(build: Build) -> Subject {
    Subject {
        breakages: vec![on_node("reservation gone", "rm /var/lib/cni/networks/$NETWORK/10.*")],
        changed_conf: json!({"ipam": {"ranges": [[{"subnet": "10.78.9.0/24"}]]}}),
        unready: vec![on_node("pool exhausted", EXHAUSTED)],
        runtime_options: vec![option(
            "ips",
            json!({"capabilities": {"ips": true}, "runtimeConfig": {"ips": ["10.77.1.77"]}}),
            "",
            Place::Node,
            "test -e /var/lib/cni/networks/$NETWORK/10.77.1.77",
        )],
        ..named("host-local", "", build, Role::Ipam, json!({"type": "host-local", "ipam": addresses()}))
    }
}

fn tuning(build: Build) -> Subject {
    let conf = json!({"type": "tuning", "mtu": 1400, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}});
    Subject {
        before: vec![ptp()],
        breakages: vec![
            in_pod("interface gone", "ip link del eth0"),
            in_pod("mtu changed", "ip link set eth0 mtu 1300"),
            in_pod("sysctl changed", "echo 0 >/proc/sys/net/ipv4/conf/eth0/arp_filter"),
        ],
        tolerances: vec![in_pod("extra route", "ip route add 192.0.2.0/24 via 10.66.0.1")],
        changed_conf: json!({"mtu": 1300}),
        runtime_options: vec![requested_mac("")],
        ..named("tuning", "", build, Role::Chained, conf)
    }
}

fn portmap(build: Build) -> Subject {
    let mapping = json!([{"hostPort": 18080, "containerPort": 80, "protocol": "tcp"}]);
    let mut conf =
        json!({"type": "portmap", "capabilities": {"portMappings": true}, "runtimeConfig": {"portMappings": mapping}});
    if build == Build::V1_9_1 {
        super::super::attachment::merge(&mut conf, &json!({"backend": "nftables"}));
    }
    Subject {
        before: vec![bridge()],
        shared: Some("suite1"),
        breakages: vec![on_node("rules gone", "nft flush ruleset")],
        tolerances: vec![in_pod("extra route", "ip route add 192.0.2.0/24 dev eth0")],
        runtime_options: vec![option("portMappings", json!({}), "", Place::Node, "nft list ruleset | grep -q 18080")],
        ..named("portmap", "", build, Role::Chained, conf)
    }
}

fn bandwidth(build: Build) -> Subject {
    let conf = json!({"type": "bandwidth", "ingressRate": 1_000_000, "ingressBurst": 800_000,
        "egressRate": 1_000_000, "egressBurst": 800_000});
    Subject {
        before: vec![ptp()],
        breakages: vec![
            on_node("shaping of what goes in gone", "tc qdisc del dev $HOSTIF root"),
            on_node(
                "device for what goes out gone",
                "for i in $(ip -br link | grep -o '^bwp[0-9a-f]*'); do ip link del $i; done",
            ),
        ],
        tolerances: vec![in_pod("extra route", "ip route add 192.0.2.0/24 via 10.66.0.1")],
        changed_conf: json!({"ingressRate": 2_000_000}),
        ..named("bandwidth", "", build, Role::Chained, conf)
    }
}
