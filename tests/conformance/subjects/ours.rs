//! Our plugin `tapvisor` in each of its bindings and both of its places.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::subject::{Build, Disturbance, Follower, Place, Role, RuntimeOption, Subject};
use super::{bridge, in_pod, on_node, option, plain, ptp};

const VERSIONS: &[&str] = &["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The plugin has no interface of its own to lose, and no address pool: why some groups cannot ask it.
const NOT_MAIN: &str = "it makes no CNI_IFNAME and has no IPAM";

pub(super) fn subjects() -> Vec<Subject> {
    vec![pass_through(), masquerade(), bridge_binding(), trailing()]
}

fn ours(name: &str, role: Role, conf: Value) -> Subject {
    Subject {
        plugin: "tapvisor",
        unready: vec![on_node("/dev/net/tun missing", "mount -t tmpfs none /dev/net")],
        exempt: BTreeMap::from([(12, NOT_MAIN)]),
        ..plain(format!("tapvisor {name}"), Build::Ours, role, VERSIONS, conf)
    }
}

/// A wiring request for one NIC.
fn request(pod_interface: &str, binding: &str) -> Value {
    json!({"version": 1, "owner": {"uid": 107, "gid": 107},
        "interfaces": [{"name": "default", "podInterface": pod_interface, "binding": binding}]})
}

fn annotated(wiring: &Value) -> Value {
    json!({"capabilities": {"io.kubernetes.cri.pod-annotations": true},
        // spec: CNI-PASS
        "runtimeConfig": {"io.kubernetes.cri.pod-annotations": {"tapvisor.io/wiring": wiring.to_string()}}})
}

fn pass_through() -> Subject {
    Subject {
        before: vec![ptp()],
        tolerances: vec![
            in_pod("extra route", "ip route add 192.0.2.0/24 via 10.66.0.1"),
            in_pod("mtu changed by a later plugin", "ip link set eth0 mtu 1400"),
            in_pod("foreign tap", "ip tuntap add tap9 mode tap"),
        ],
        runtime_options: vec![
            option(
                "pod annotation",
                annotated(&request("eth0", "masquerade")),
                "",
                Place::Pod,
                "ip link show k6t-eth0",
            ),
            option(
                "args.cni",
                json!({"args": {"cni": {"wiring": request("eth0", "masquerade")}}}),
                "",
                Place::Pod,
                "ip link show k6t-eth0",
            ),
            option(
                "configuration",
                json!({"wiring": request("eth0", "masquerade")}),
                "",
                Place::Pod,
                "ip link show k6t-eth0",
            ),
            annotation_before_configuration(),
            option(
                "unknown and doubled CNI_ARGS are passed over",
                json!({}),
                "IgnoreUnknown=1;IgnoreUnknown=true;K8S_POD_NAME=a;K8S_POD_NAME=a;COLOUR=red",
                Place::Pod,
                "ip link show eth0",
            ),
            option(
                "unknown CNI_ARGS are nothing to a pod without a request",
                json!({}),
                "COLOUR=red",
                Place::Pod,
                "ip link show eth0",
            ),
        ],
        ..ours("without a request", Role::Chained, json!({"type": "tapvisor"}))
    }
}

fn annotation_before_configuration() -> RuntimeOption {
    let mut conf = annotated(&request("eth0", "bridge"));
    super::super::attachment::merge(&mut conf, &json!({"wiring": request("eth0", "masquerade")}));
    option("pod annotation before configuration", conf, "", Place::Pod, "ip link show tap0 && ! ip link show k6t-eth0")
}

/// What Kubernetes' distributions put behind a pod network.
fn followers() -> Vec<Follower> {
    let portmap = |build| match build {
        Build::V1_9_1 => json!({"type": "portmap", "capabilities": {"portMappings": true}, "backend": "nftables"}),
        _ => json!({"type": "portmap", "capabilities": {"portMappings": true}}),
    };
    let bandwidth = |_| {
        json!({"type": "bandwidth", "ingressRate": 8_000_000, "ingressBurst": 800_000,
            "egressRate": 8_000_000, "egressBurst": 800_000})
    };
    let tuning = |_| json!({"type": "tuning", "mtu": 1400, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}});
    let mapped = json!({"portMappings": [{"hostPort": 18080, "containerPort": 80, "protocol": "tcp"}]});
    vec![
        follower(portmap, mapped, Place::Node, "nft list ruleset 2>/dev/null | grep -q 18080"),
        follower(bandwidth, json!({}), Place::Node, "tc qdisc | grep -q tbf"),
        follower(
            tuning,
            json!({}),
            Place::Pod,
            "ip link show eth0 | grep -q 'mtu 1400' && grep -q 1 /proc/sys/net/ipv4/conf/eth0/arp_filter",
        ),
    ]
}

fn follower(conf: fn(Build) -> Value, capabilities: Value, place: Place, shows: &'static str) -> Follower {
    Follower { conf, capabilities, place, shows }
}

fn masquerade() -> Subject {
    Subject {
        before: vec![ptp()],
        after: followers(),
        occupied: Some("k6t-eth0"),
        breakages: masquerade_breakages(),
        tolerances: vec![
            in_pod("extra route", "ip route add 192.0.2.0/24 via 10.66.0.1"),
            in_pod("extra nft table", "nft add table inet other && nft add chain inet other c"),
            in_pod("extra port in the pod", "ip link add net1 type veth peer name net1p"),
            in_pod("launcher attached without vnet_hdr", "true"),
        ],
        changed_conf: json!({"wiring": request("eth0", "bridge")}),
        runtime_options: vec![annotation_before_configuration()],
        ..ours("masquerade", Role::Chained, json!({"type": "tapvisor", "wiring": request("eth0", "masquerade")}))
    }
}

fn tap_breakages() -> Vec<Disturbance> {
    vec![
        in_pod("VM tap gone", "ip link del $TAP"),
        in_pod("VM tap down", "ip link set $TAP down"),
        in_pod("VM tap's mtu changed", "ip link set $TAP mtu 1300"),
        in_pod("VM tap's commit mark gone", "ip link set $TAP alias ''"),
        in_pod(
            "VM tap replaced by one of another owner",
            "m=$(cat /sys/class/net/$TAP/ifalias 2>/dev/null || ip -d link show $TAP | sed -n 's/.*alias //p'); \
             a=$(ip -br link show $TAP | tr -s ' ' | cut -d' ' -f3); ip link del $TAP; \
             ip tuntap add $TAP mode tap user 0; ip link set $TAP address $a alias \"$m\" up",
        ),
        in_pod("service tap gone", "ip link del svc-eth0"),
        in_pod("service tap down", "ip link set svc-eth0 down"),
        in_pod("netdev table gone", "nft delete table netdev tapvisor"),
        in_pod(
            "chain of the netdev table emptied",
            "c=$(nft -j list table netdev tapvisor | jq -r '[.nftables[].rule.chain | strings][0]'); nft flush chain netdev tapvisor $c",
        ),
        in_pod("pod interface gone", "ip link del eth0"),
    ]
}

fn masquerade_breakages() -> Vec<Disturbance> {
    let mut breakages = tap_breakages();
    breakages.extend([
        in_pod("VM tap's mac changed", "ip link set $TAP address 02:00:00:00:66:66"),
        in_pod("gateway address gone", "ip addr del 10.0.2.1/24 dev $TAP"),
        in_pod("IPv6 gateway address gone", "ip -6 addr del fd10:0:2::1/120 dev $TAP"),
        in_pod("inet table gone", "nft delete table inet tapvisor"),
        in_pod(
            "a single nat rule gone",
            "set -- $(nft -j list table inet tapvisor | jq -r '[.nftables[].rule | objects][-1] | \"\\(.chain) \\(.handle)\"'); \
             nft delete rule inet tapvisor $1 handle $2",
        ),
        in_pod("forwarding off", "echo 0 >/proc/sys/net/ipv4/ip_forward"),
        in_pod("IPv6 forwarding off", "echo 0 >/proc/sys/net/ipv6/conf/all/forwarding"),
    ]);
    breakages
}

fn bridge_binding() -> Subject {
    Subject {
        before: vec![bridge()],
        after: followers(),
        shared: Some("suite1"),
        occupied: Some("tap0"),
        breakages: tap_breakages(),
        tolerances: vec![
            in_pod("extra route", "ip route add 192.0.2.0/24 dev eth0"),
            in_pod("extra nft table", "nft add table inet other && nft add chain inet other c"),
        ],
        changed_conf: json!({"wiring": request("eth0", "masquerade")}),
        runtime_options: vec![option(
            "pod annotation before configuration",
            annotated(&request("eth0", "masquerade")),
            "",
            Place::Pod,
            "ip link show k6t-eth0 && ! ip link show tap0",
        )],
        ..ours("bridge binding", Role::Chained, json!({"type": "tapvisor", "wiring": request("eth0", "bridge")}))
    }
}

fn trailing() -> Subject {
    let conf = json!({"type": "tapvisor", "args": {"cni": {"wiring": request("eth0", "masquerade")}}});
    Subject {
        before: vec![ptp()],
        occupied: Some("k6t-eth0"),
        breakages: masquerade_breakages(),
        tolerances: vec![in_pod("extra route", "ip route add 192.0.2.0/24 via 10.66.0.1")],
        changed_conf: json!({"args": {"cni": {"wiring": request("eth0", "bridge")}}}),
        runtime_options: vec![option(
            "pod annotation before args.cni",
            annotated(&request("eth0", "bridge")),
            "",
            Place::Pod,
            "ip link show tap0 && ! ip link show k6t-eth0",
        )],
        ..ours("trailing attachment", Role::Trailing, conf)
    }
}
