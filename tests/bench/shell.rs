//! Wiring by a shell that executes `ip` and `nft`, each rule an execution, as KubeVirt's handler adds them.
//!
//! Cheaper than the original: KubeVirt enters the namespace again for each, and makes links while the pod already runs.

use std::fmt::Write as _;

use tests::Program;

/// The script that wires a pod, and the one that undoes it.
pub(crate) fn scripts(binding: &str) -> [String; 2] {
    match binding {
        "masquerade" => [masquerade(), masquerade_undone()],
        "tc" => [TC.to_owned(), TC_UNDONE.to_owned()],
        _ => [BRIDGE.to_owned(), BRIDGE_UNDONE.to_owned()],
    }
}

/// A script as a program in a pod.
pub(crate) fn program(pod: &str, script: String) -> Program {
    let mut program = Program::new("/usr/bin/nsenter", &[&format!("--net=/run/netns/{pod}"), "/bin/sh"]);
    program.input = script.into_bytes();
    program
}

const LINKS: &str = "set -e
ip link add k6t-eth0 address 02:00:00:00:00:00 type bridge
ip tuntap add tap0 mode tap user 107 group 107
ip link set tap0 mtu 1500 master k6t-eth0 up
ip addr add 10.0.2.1/24 dev k6t-eth0
ip addr add fd10:0:2::1/120 dev k6t-eth0 nodad
ip link set k6t-eth0 mtu 1500 up
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
echo 1 >/proc/sys/net/ipv4/conf/k6t-eth0/route_localnet
";

/// A table, six chains and six rules for each family.
fn masquerade() -> String {
    let mut script = LINKS.to_owned();
    for (family, guest, gateway, loopback) in
        [("ip", "10.0.2.2", "10.0.2.1", "127.0.0.1"), ("ip6", "fd10:0:2::2", "fd10:0:2::1", "::1")]
    {
        let _ = write!(
            script,
            "nft add table {family} nat
nft 'add chain {family} nat prerouting {{ type nat hook prerouting priority -100; }}'
nft 'add chain {family} nat input {{ type nat hook input priority 100; }}'
nft 'add chain {family} nat output {{ type nat hook output priority -100; }}'
nft 'add chain {family} nat postrouting {{ type nat hook postrouting priority 100; }}'
nft add chain {family} nat KUBEVIRT_PREINBOUND
nft add chain {family} nat KUBEVIRT_POSTINBOUND
nft add rule {family} nat postrouting {family} saddr {guest} counter masquerade
nft add rule {family} nat prerouting iifname eth0 counter jump KUBEVIRT_PREINBOUND
nft add rule {family} nat postrouting oifname k6t-eth0 counter jump KUBEVIRT_POSTINBOUND
nft add rule {family} nat KUBEVIRT_PREINBOUND counter dnat to {guest}
nft add rule {family} nat KUBEVIRT_POSTINBOUND {family} saddr '{{ {loopback} }}' counter snat to {gateway}
nft add rule {family} nat output {family} daddr '{{ {loopback} }}' counter dnat to {guest}
"
        );
    }
    script
}

fn masquerade_undone() -> String {
    "set -e
nft delete table ip nat
nft delete table ip6 nat
ip link delete tap0
ip link delete k6t-eth0
"
    .to_owned()
}

/// The pod's NIC renamed and bridged, a device in its place that keeps its addresses (KubeVirt's is a dummy, which fewer kernels
/// have than a veth).
const BRIDGE: &str = "set -e
ip link set eth0 down
ip link set eth0 name eth0-nic
ip link add k6t-eth0 address 02:00:00:00:00:00 type bridge
ip link set eth0-nic address 02:00:00:00:00:99 master k6t-eth0 up
ip addr flush dev eth0-nic
ip tuntap add tap0 mode tap user 107 group 107
ip link set tap0 mtu 1500 master k6t-eth0 up
ip addr add 169.254.75.10/32 dev k6t-eth0
echo 1 >/proc/sys/net/ipv4/conf/k6t-eth0/arp_ignore
ip link set k6t-eth0 mtu 1500 up
ip link add eth0 address 0a:58:0a:f4:01:05 type veth peer name eth0-peer
ip addr add 10.244.1.5/24 dev eth0
ip addr add fd00:10:244:1::5/64 dev eth0 nodad
bridge link set dev eth0-nic learning off
";

const BRIDGE_UNDONE: &str = "set -e
ip link delete eth0
ip link delete tap0
ip link delete k6t-eth0
ip link set eth0-nic down
ip link set eth0-nic name eth0
";

/// The pod's NIC and a tap, each frame of one handed to the other by a filter: what other VM runtimes do.
const TC: &str = "set -e
ip addr flush dev eth0
ip tuntap add tap0 mode tap user 107 group 107
ip link set tap0 mtu 1500 up
for pair in eth0:tap0 tap0:eth0; do
    tc qdisc add dev ${pair%:*} ingress
    tc filter add dev ${pair%:*} parent ffff: protocol all u32 match u32 0 0 action mirred egress redirect dev ${pair#*:}
done
";

const TC_UNDONE: &str = "set -e
tc qdisc delete dev eth0 ingress
ip link delete tap0
ip addr add 10.244.1.5/24 dev eth0
ip addr add fd00:10:244:1::5/64 dev eth0 nodad
";
