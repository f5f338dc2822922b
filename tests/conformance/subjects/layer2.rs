//! Our plugin `tapvisor-bridge`: with addresses and all that it sets up on the node, and without.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::subject::{Build, Place, Role, RuntimeOption, Subject};
use super::reference::{addresses, with_pod_breakages};
use super::{in_pod, on_node, option, plain};

const VERSIONS: &[&str] = &["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// All of a network's IPv4 addresses in the reference plugin's folder.
const EXHAUSTED: &str = "mkdir -p /var/lib/cni/networks/$NETWORK; \
    for i in $(seq 1 254); do echo taken >/var/lib/cni/networks/$NETWORK/10.77.1.$i; done";

const WITHOUT_RULES: &str = "nft flush chain inet tapvisor-bridge leaving";

pub(super) fn subjects() -> Vec<Subject> {
    vec![network(), without_addresses(), point_to_point()]
}

fn ours(note: &str, conf: Value) -> Subject {
    Subject {
        plugin: "tapvisor-bridge",
        shared: Some("suite0"),
        occupied: Some("eth0"),
        ..plain(format!("tapvisor-bridge{note}"), Build::Ours, Role::Main, VERSIONS, conf)
    }
}

fn network() -> Subject {
    let conf = json!({"type": "tapvisor-bridge", "bridge": "suite0", "isGateway": true, "ipMasq": true, "macspoofchk": true,
        "hairpinMode": true, "portIsolation": true, "ipam": addresses()});
    Subject {
        breakages: with_pod_breakages([
            on_node("node's end not in the bridge", "ip link set $HOSTIF nomaster"),
            on_node(
                "node's end in another bridge",
                "ip link add other0 type bridge; ip link set $HOSTIF master other0",
            ),
            on_node("node's end down", "ip link set $HOSTIF down"),
            on_node("isolation off", "bridge link set dev $HOSTIF isolated off"),
            on_node("hairpin off", "bridge link set dev $HOSTIF hairpin off"),
            on_node("spoof check off", "ip link set $HOSTIF group default"),
            on_node("spoof check's table gone", "nft delete table bridge tapvisor-bridge"),
            on_node("spoof check's element gone", "nft flush set bridge tapvisor-bridge owners"),
            on_node("masquerading's rules gone", WITHOUT_RULES),
            on_node("masquerading's elements gone", "nft flush set inet tapvisor-bridge masqueraded4"),
            on_node("gateway's address gone", "ip addr del 10.77.1.1/24 dev suite0"),
            on_node("forwarding off", "echo 0 >/proc/sys/net/ipv4/ip_forward"),
            on_node("reservation gone", "rm /run/tapvisor/networks/$NETWORK/10.*"),
            on_node("bridge down", "ip link set suite0 down"),
            on_node("bridge gone", "ip link del suite0"),
        ]),
        tolerances: vec![
            on_node(
                "bridge's mac changed",
                "ip link add port0 address 02:00:00:00:00:00 type veth peer name port1 && ip link set port0 master suite0 up; \
                 ip link set suite0 address 02:00:00:00:77:88",
            ),
            on_node("node's end's mac changed by udev", "ip link set $HOSTIF address 02:00:00:00:77:77"),
            in_pod("extra route", "ip route add 192.0.2.0/24 dev eth0"),
            in_pod("mtu changed by a later plugin", "ip link set eth0 mtu 1400"),
        ],
        uprootings: vec![
            on_node("with the bridge gone", "ip link del suite0"),
            on_node("with the tables gone", "nft flush ruleset"),
        ],
        changed_conf: json!({"bridge": "suite9", "macspoofchk": false, "ipMasq": false,
            "ipam": {"ranges": [[{"subnet": "10.78.9.0/24"}]]}}),
        unready: vec![
            on_node("pool exhausted", EXHAUSTED),
            on_node("the bridge's name taken", "ip link add suite0 type ifb"),
        ],
        runtime_options: vec![
            requested_mac("", "02:00:00:00:77:01"),
            RuntimeOption {
                what: "mac from the runtime before mac from CNI_ARGS",
                ..requested_mac("IgnoreUnknown=1;MAC=02:00:00:00:77:02", "02:00:00:00:77:01")
            },
            option(
                "mac from args.cni before mac from CNI_ARGS",
                json!({"args": {"cni": {"mac": "02:00:00:00:77:03"}}}),
                "MAC=02:00:00:00:77:02",
                Place::Pod,
                "ip link show eth0 | grep -q 02:00:00:00:77:03",
            ),
            option(
                "ips",
                json!({"capabilities": {"ips": true}, "runtimeConfig": {"ips": ["10.77.1.77", "fd77:1::77/64"]}}),
                "",
                Place::Pod,
                "ip addr show eth0 | grep -q 10.77.1.77/24 && ip addr show eth0 | grep -q fd77:1::77/64",
            ),
            option(
                "ipRanges",
                json!({"forceAddress": true, "runtimeConfig": {"ipRanges": [[{"subnet": "10.99.0.0/24"}]]}, "ipam": {"ranges": [[{"subnet": "fd77:1::/64"}]]}}),
                "",
                Place::Pod,
                "ip addr show eth0 | grep -q 10.99.0",
            ),
        ],
        ..ours("", conf)
    }
}

fn requested_mac(args: &'static str, mac: &'static str) -> RuntimeOption {
    let conf = json!({"capabilities": {"mac": true}, "runtimeConfig": {"mac": mac}});
    option("mac", conf, args, Place::Pod, "ip link show eth0 | grep -q 02:00:00:00:77:01")
}

fn without_addresses() -> Subject {
    Subject {
        breakages: vec![
            in_pod("interface gone", "ip link del eth0"),
            in_pod("interface down", "ip link set eth0 down"),
            on_node("node's end not in the bridge", "ip link set $HOSTIF nomaster"),
            on_node("uplink not in the bridge", "ip link set up0 nomaster"),
            on_node("bridge gone", "ip link del suite0"),
            // Last: without it there is no ADD any more.
            on_node("uplink gone", "ip link del up0"),
        ],
        tolerances: vec![in_pod("layer 2 without IPAM", "true"), on_node("uplink unplugged", "ip link set up1 down")],
        uprootings: vec![
            on_node("with the bridge gone", "ip link del suite0"),
            on_node("with the uplink gone", "ip link del up0"),
        ],
        unready: vec![
            on_node("the bridge's name taken", "ip link add suite0 type ifb"),
            on_node("uplink gone", "ip link del up0"),
        ],
        exempt: BTreeMap::from([(12, "layer 2: it calls no IPAM plugin")]),
        node: "ip link add up0 type veth peer name up1; ip link set up1 up",
        ..ours(" layer 2", json!({"type": "tapvisor-bridge", "bridge": "suite0", "uplink": "up0"}))
    }
}

/// Without a bridge: the host routes to each pod by its own cable.
fn point_to_point() -> Subject {
    let conf = json!({"type": "tapvisor-bridge", "pointToPoint": true, "ipMasq": true, "ipam": addresses()});
    Subject {
        shared: None,
        breakages: with_pod_breakages([
            on_node("node's end in a bridge", "ip link add other0 type bridge; ip link set $HOSTIF master other0"),
            on_node("node's end down", "ip link set $HOSTIF down"),
            on_node("node's end without the gateway", "ip addr flush dev $HOSTIF"),
            on_node("node's route to the pod gone", "ip -4 route flush dev $HOSTIF"),
            on_node("masquerading's rules gone", WITHOUT_RULES),
            on_node("masquerading's elements gone", "nft flush set inet tapvisor-bridge masqueraded4"),
            on_node("forwarding off", "echo 0 >/proc/sys/net/ipv4/ip_forward"),
            on_node("reservation gone", "rm /run/tapvisor/networks/$NETWORK/10.*"),
        ]),
        tolerances: vec![
            on_node("node's end's mac changed by udev", "ip link set $HOSTIF address 02:00:00:00:77:77"),
            in_pod("extra route", "ip route add 192.0.2.0/24 dev eth0"),
            in_pod("mtu changed by a later plugin", "ip link set eth0 mtu 1400"),
        ],
        uprootings: vec![on_node("with the tables gone", "nft flush ruleset")],
        changed_conf: json!({"ipMasq": false, "ipam": {"ranges": [[{"subnet": "10.78.9.0/24"}]]}}),
        unready: vec![on_node("pool exhausted", EXHAUSTED)],
        runtime_options: vec![requested_mac("", "02:00:00:00:77:01")],
        exempt: BTreeMap::from([(15, "the node has one route per address: two pods with one address cannot be")]),
        ..ours(" without a bridge", conf)
    }
}
