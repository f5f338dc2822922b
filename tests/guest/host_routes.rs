//! Both bindings on pods that are all host routes, /32 and /128: as Calico and as Cilium wire them.
//!
//! Stand-ins for their plugins, written in shell, leave in the pod what theirs do: the launcher has nothing else to go by.

use libtest_mimic::Trial;
use serde_json::json;
use tests::trial;

use crate::manifest::Vm;
use crate::vm::Host;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: DHCP-14
        trial("both bindings work on host routes with a link-local gateway (Calico)", || both(&CALICO)),
        // spec: DHCP-14
        trial("both bindings work on host routes with a global gateway (Cilium)", || both(&CILIUM)),
    ]
}

struct Style {
    v4_gateway: &'static str,
    v6_gateway: &'static str,
    /// What makes the node's end of the pod's cable answer for the gateways.
    node_end: &'static str,
    /// The router that a bridge-bound guest gets to know for IPv6.
    v6_router: &'static str,
}

const CALICO: Style = Style {
    v4_gateway: "169.254.1.1",
    v6_gateway: "fe80::ecee:eeff:feee:eeee",
    node_end: "sysctl -qw net.ipv4.conf.$node.proxy_arp=1 net.ipv4.neigh.$node.proxy_delay=0",
    v6_router: "fe80::ecee:eeff:feee:eeee",
};

const CILIUM: Style = Style {
    v4_gateway: "10.65.255.1",
    v6_gateway: "fd65::ff:1",
    node_end: "ip addr add 10.65.255.1/32 dev $node; ip addr add fd65::ff:1/128 dev $node nodad",
    v6_router: "fe80::7476:1",
};

impl Style {
    fn plugin(&self) -> String {
        let Self { v4_gateway, v6_gateway, node_end, .. } = self;
        format!(
            r#"#!/bin/bash
set -euo pipefail
cat >/dev/null
node=pod${{CNI_CONTAINERID:0:10}}
case $CNI_COMMAND in
ADD)
    exec 9>>/run/test-pods
    flock 9
    echo pod >&9
    number=$((10 + $(wc -l </run/test-pods)))
    exec 9>&-
    v4=10.65.0.$number v6=fd65::$number
    pod="ip -n ${{CNI_NETNS##*/}}"
    sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    ip link add $node address ee:ee:ee:ee:ee:ee type veth peer name $CNI_IFNAME netns ${{CNI_NETNS##*/}}
    ip link set $node up
    {node_end}
    ip route add $v4 dev $node
    ip route add $v6 dev $node
    $pod link set $CNI_IFNAME up
    $pod addr add $v4/32 dev $CNI_IFNAME
    $pod addr add $v6/128 dev $CNI_IFNAME nodad
    for gateway in {v4_gateway} {v6_gateway}; do
        case $gateway in fe80:*) ;; *) $pod route add $gateway dev $CNI_IFNAME scope link ;; esac
        $pod route add default via $gateway dev $CNI_IFNAME
    done
    nft "table inet $node {{ chain out {{ type nat hook postrouting priority srcnat;
        oifname uplink0 ip saddr $v4 masquerade; oifname uplink0 ip6 saddr $v6 masquerade; }}; }}"
    echo '{{"cniVersion": "1.0.0", "interfaces": [{{"name": "'$CNI_IFNAME'", "sandbox": "'$CNI_NETNS'"}}],
        "ips": [{{"address": "'$v4/32'", "interface": 0}}, {{"address": "'$v6/128'", "interface": 0}}]}}'
    ;;
DEL)
    ip link del $node 2>/dev/null || true
    nft delete table inet $node 2>/dev/null || true
    ;;
VERSION) echo '{{"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]}}' ;;
esac
"#
        )
    }
}

fn both(style: &Style) {
    let host = Host::new();
    host.world.write("/opt/cni/bin/host-routes", style.plugin());
    host.world.run(&["chmod", "0755", "/opt/cni/bin/host-routes"]).assert_ok();
    let network = json!({"cniVersion": "1.0.0", "name": "test", "plugins": [{"type": "host-routes"}]}).to_string();
    host.run(&[Vm::new("web", "masquerade"), Vm::new("db", "bridge")], Some(&network)).assert_ok();
    let (web, db) = (host.guest("web"), host.guest("db"));
    assert_eq!(db.lease4("eth0").address, format!("{}/32", db.pod_address("-4")));
    assert_eq!(db.lease4("eth0").via, style.v4_gateway);
    assert_eq!(db.lease6("eth0").ip(), db.pod_address("-6"));
    assert_eq!(db.lease6("eth0").via, style.v6_router);
    assert_eq!(web.lease4("eth0").address, "10.0.2.2/24");
    assert_eq!(web.lease6("eth0").ip(), "fd10:0:2::2");
    for family in ["-4", "-6"] {
        for (guest, other) in [(&web, &db), (&db, &web)] {
            host.assert_reached(guest, family);
            let page = guest.ok(&format!("timeout 60 wget -qO- {}", crate::vm::url(&other.pod_address(family))));
            assert!(page.contains(&format!("guest {}", other.name())), "{page}");
        }
    }
    host.assert_removed(&["web", "db"]);
}
