//! A bridge-bound NIC whose pod knows its gateway by a global address: the service plays the router and resolves it.

use dhcp::{Config, GatewayState, Lifetime, Router, V4Config, V6Config};
use libtest_mimic::Trial;
use terms::MacAddr;
use tests::{DhcpService, FakeGuest, World, trial, wait_for};

use super::{GUEST_MAC, PATIENCE, Scene, has_address, has_default};

const GATEWAY_MAC: &str = "02:00:00:00:99:01";
/// The guest sees it, the pod network does not.
const SERVICE_MAC: MacAddr = MacAddr::local([0x74, 0x61, 0x70, 0, 2]);

pub(super) fn trials() -> Vec<Trial> {
    vec![
        // spec: DHCP-15
        trial("a bridge-bound guest reaches the outside through the virtual router", || virtual_router(VETH)),
        // spec: DHCP-15
        trial("a bridge-bound guest on a macvlan reaches the outside as well", || virtual_router(MACVLAN)),
    ]
}

/// A gateway with an outside behind it, reachable from the pod by a /32 and a /128 as Calico has it, but global.
const NETWORK: &str = "
ip netns exec net sh -euc '
  sysctl -qw net.ipv6.conf.all.forwarding=1
  ip addr add 10.9.0.1/32 dev gw0; ip route add 10.9.0.5/32 dev gw0 2>/dev/null || true
  ip link set gw0 up
  ip route replace 10.9.0.5/32 dev gw0
  ip addr add fd09::1/64 dev gw0 nodad
  ip addr add 10.99.0.1/32 dev lo; ip addr add fd99::1/128 dev lo'
ip tuntap add tap0 mode tap vnet_hdr
ip tuntap add svc-eth0 mode tap
ip addr add 10.9.0.5/32 dev eth0; ip addr add fd09::5/128 dev eth0 nodad
for link in eth0 tap0 svc-eth0; do ip link set $link addrgenmode none up; done
nft -f - <<EOF
table netdev tapvisor {
  chain vm {
    type filter hook ingress device tap0 priority 0;
    udp dport { 67, 547 } fwd to svc-eth0
    icmpv6 type nd-router-solicit fwd to svc-eth0
    icmpv6 type nd-neighbor-solicit @th,64,128 0xfe800000000000000000000074760001 fwd to svc-eth0
    fwd to eth0
  }
  chain nic {
    type filter hook ingress device eth0 priority 0;
    ip6 daddr fe80::7476:200:0:7 icmpv6 type nd-neighbor-advert fwd to svc-eth0
    icmpv6 type nd-router-advert drop
    fwd to tap0
  }
  chain service {
    type filter hook ingress device svc-eth0 priority 0;
    ip6 saddr fe80::7476:200:0:7 icmpv6 type nd-neighbor-solicit fwd to eth0
    fwd to tap0
  }
}
EOF
";

/// The pod's interface on it: one that takes any address, and one that delivers only to its own.
const VETH: &str =
    "ip link add eth0 address 02:00:00:00:00:07 type veth peer name gw0 address 02:00:00:00:99:01 netns net";
const MACVLAN: &str = "
ip link add up0 type veth peer name gw0 address 02:00:00:00:99:01 netns net
ip link add eth0 link up0 address 02:00:00:00:00:07 type macvlan mode bridge
ip link set up0 addrgenmode none up";

fn config() -> Config {
    let mut config = Config::new(GUEST_MAC.parse().unwrap(), SERVICE_MAC);
    config.service_link_local = wiring::service_link_local(config.guest_mac);
    let gateway = [10, 9, 0, 1].into();
    config.v4 = Some(V4Config {
        address: "10.9.0.5/32".parse().unwrap(),
        server_id: gateway,
        router: Some(gateway),
        ..V4Config::default()
    });
    let link_local = "fe80::7476:1".parse().unwrap();
    config.v6 = Some(V6Config {
        address: "fd09::5".parse().unwrap(),
        preferred: Lifetime::Infinite,
        valid: Lifetime::Infinite,
        router: Router::Virtual { link_local, gateway: "fd09::1".parse().unwrap() },
        router_lifetime_seconds: 1800,
        prefixes: Vec::new(),
        routes: Vec::new(),
        boot_file_url: None,
    });
    config
}

fn virtual_router(pod_interface: &str) {
    let world = World::bare();
    let (_net, pod) = (world.ns("net"), world.ns("pod"));
    pod.sh(pod_interface).assert_ok();
    pod.sh(NETWORK).assert_ok();
    let service = DhcpService::start("virtual-router", &pod, "svc-eth0", config());
    let guest = FakeGuest::plug(&world, "guest", &pod, "tap0", GUEST_MAC);
    let scene = Scene { guest, service, pod };
    let guest = scene.ns();
    guest.run(&["dhcpcd", "-w", "eth0"]).assert_ok();
    wait_for("the IPv4 address", PATIENCE, || has_address(guest, "-4", "10.9.0.5/32"));
    wait_for("the IPv4 route", PATIENCE, || has_default(guest, "-4", "10.9.0.1"));
    wait_for("the IPv6 address", PATIENCE, || has_address(guest, "-6", "fd09::5/128"));
    wait_for("the IPv6 route", PATIENCE, || has_default(guest, "-6", "fe80::7476:1"));
    for outside in ["10.99.0.1", "fd99::1"] {
        guest.run(&["ping", "-c", "2", "-i", "0.2", "-W", "20", outside]).assert_ok();
    }
    let neighbours = guest.run(&["ip", "-j", "-6", "neigh", "show", "fe80::7476:1", "dev", "eth0"]).json();
    assert_eq!(neighbours[0]["lladdr"], GATEWAY_MAC);
    let gateway = scene.service.snapshot().gateway;
    assert!(matches!(gateway, GatewayState::Reachable { mac, .. } if mac.to_string() == GATEWAY_MAC), "{gateway:?}");
}
