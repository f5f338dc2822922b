//! Faults outside a VM's own wiring: rules, routes that refuse, firewalls and neighbours of the host.

use super::asking::{Fault, assert_healthy, assert_named, fault};
use super::wait_leases;
use crate::manifest::Vm;
use crate::networks::network;
use crate::vm::Host;

/// Said of either binding.
const ON_THE_HOST: [Fault; 9] = [
    fault("noRoute", "host", "ip rule add from ADDRESS blackhole pref 50", "ip rule del pref 50"),
    fault("noRoute", "host", "ip rule add to ADDRESS unreachable pref 50", "ip rule del pref 50"),
    fault("noRoute", "host", "ip rule add iif uplink0 prohibit pref 50", "ip rule del pref 50"),
    fault(
        "noRoute",
        "host",
        "ip route show default >/run/default; ip route replace blackhole default",
        "ip route del blackhole default; ip route add $(cat /run/default)",
    ),
    fault(
        "neighbourForeign",
        "END",
        "ip neigh replace ADDRESS lladdr 02:de:ad:00:00:01 dev END nud permanent",
        "ip neigh del ADDRESS dev END",
    ),
    fault(
        "forwardDrop",
        "host",
        "echo 'table inet mine { chain f { type filter hook forward priority 0; ip daddr ADDRESS drop; }; }' | nft -f -",
        "nft delete table inet mine",
    ),
    fault(
        "forwardDrop",
        "host",
        "echo 'table inet mine { chain f { type filter hook prerouting priority raw; iifname END drop; }; }' | nft -f -",
        "nft delete table inet mine",
    ),
    fault("forwardDrop", "host", "iptables -A FORWARD -j REJECT", "nft delete table ip filter"),
    fault(
        "masqueradeGone",
        "host",
        "nft list table inet tapvisor-bridge >/run/masqueraded; nft delete table inet tapvisor-bridge",
        "nft -f /run/masqueraded",
    ),
];

/// Inside the namespace, through which only a masqueraded guest's packets are routed.
const IN_THE_POD: [Fault; 3] = [
    fault("noRoute", "eth0", "POD ip rule add iif k6t-eth0 prohibit pref 50", "POD ip rule del pref 50"),
    fault(
        "noRoute",
        "k6t-eth0",
        "POD sysctl -qw net.ipv4.conf.eth0.forwarding=0",
        "POD sysctl -qw net.ipv4.conf.eth0.forwarding=1",
    ),
    fault(
        "neighbourUnresolved",
        "eth0",
        "sysctl -qw net.ipv4.conf.END.arp_ignore=8; POD ip neigh flush dev eth0",
        "sysctl -qw net.ipv4.conf.END.arp_ignore=0; POD ip neigh flush dev eth0",
    ),
];

/// Where the network is of the reference plugin `bridge`.
const AT_THE_BRIDGE: [Fault; 3] = [
    fault("masqueradeGone", "host", "iptables-save -t nat >/run/nat; iptables -t nat -F", "iptables-restore </run/nat"),
    fault("wrongBridge", "END", "ip link set END nomaster", "ip link set END master br-test"),
    fault(
        "wrongBridge",
        "END",
        "ip link add br-other type bridge; ip link set br-other up; ip link set END master br-other",
        "ip link set END master br-test; ip link del br-other",
    ),
];

pub(super) fn wrong_bridge() {
    let host = Host::new();
    host.run(&[Vm::new("web", "masquerade")], Some(&network("bridge", &["-4"], 1500))).assert_ok();
    let web = host.guest("web");
    let _ = web.lease4("eth0");
    assert_healthy(&host, "web");
    assert_named(&host, &web, &AT_THE_BRIDGE);
    host.remove(&["--force", "web"]).assert_ok();
}

pub(super) fn outside_the_wiring() {
    let host = Host::new();
    host.run(&[Vm::new("web", "masquerade"), Vm::new("db", "bridge")], None).assert_ok();
    for name in ["web", "db"] {
        let guest = host.guest(name);
        wait_leases(&guest);
        assert_healthy(&host, name);
        assert_named(&host, &guest, &ON_THE_HOST);
    }
    assert_named(&host, &host.guest("web"), &IN_THE_POD);
    host.remove(&["--force", "web", "db"]).assert_ok();
    host.assert_nothing_left();
}
