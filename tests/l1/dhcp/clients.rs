//! First contact: each client gets what it can use.

use libtest_mimic::Trial;
use tests::{DhcpService, FakeGuest, Skip, World, needs, trial, wait_for};

use super::{Scene, run_dhclient6, start_networkd};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        // spec: DHCP-1, DHCP-11
        trial("dhclient gets a dual-stack default route", dhclient),
        // spec: DHCP-6
        trial("dhclient is told as many names of a long search list as fit, in order", long_search_list),
        // spec: DHCP-1
        trial("dhcpcd gets a dual-stack default route", dhcpcd),
        trial("udhcpc gets an IPv4 default route", udhcpc),
        // spec: DHCP-1
        trial("systemd-networkd gets a dual-stack default route", networkd),
        // spec: DHCP-7
        trial("systemd-networkd gets a secondary network's routes by advertisement", secondary_routes),
        // spec: DHCP-17
        needs("udhcpc6 gets an IPv6 address", has_udhcpc6, udhcpc6),
        trial("frames of a guest with checksum offload arrive with valid checksums", checksums),
    ]
}

fn dhclient() {
    let world = World::bare();
    let scene = Scene::of("dhclient", &world, 3600);
    scene.ns().run(&["dhclient", "-4", "-1", "-pf", "/run/dhclient4.pid", "eth0"]).assert_ok();
    scene.assert_ipv4();
    run_dhclient6(scene.ns());
    scene.assert_ipv6();
    let resolv = std::fs::read_to_string(world.path("/etc/resolv.conf")).unwrap();
    assert!(resolv.contains("fd00:96::a") && resolv.contains("cluster.local"), "{resolv}");
    // Debian's configuration asks for its name; over IPv6 alone there is no other way to have one.
    let leases = std::fs::read_to_string(world.path("/var/lib/dhcp/dhclient6.leases")).unwrap();
    assert!(leases.contains("vm.default.svc.cluster.local"), "{leases}");
}

fn long_search_list() {
    let world = World::bare();
    let pod = world.ns("pod");
    pod.sh(super::POD).assert_ok();
    let mut config = super::masquerade(3600);
    let name = |n: u8| format!("team-{n:02}.department-of-things.region-{n:02}.corp.example-company-{n:02}.org");
    config.search = (0..8).map(|n| name(n).parse().unwrap()).collect();
    let service = DhcpService::start("long-search-list", &pod, "svc-eth0", config);
    let guest = FakeGuest::plug(&world, "guest", &pod, "k6t-eth0", super::GUEST_MAC);
    let scene = Scene { guest, service, pod };
    scene.ns().run(&["dhclient", "-4", "-1", "-pf", "/run/dhclient4.pid", "eth0"]).assert_ok();
    let left_out = scene.service.snapshot().v4.search_left_out;
    assert!((1..=6).contains(&left_out), "{left_out} names left out");
    let leases = std::fs::read_to_string(world.path("/var/lib/dhcp/dhclient.leases")).unwrap();
    let told: Vec<_> = leases.lines().filter(|line| line.contains("domain-search")).collect();
    let names: Vec<_> = (0..8).filter(|n| told.iter().any(|line| line.contains(&name(*n)))).collect();
    assert_eq!(names, (0..8 - u8::try_from(left_out).unwrap()).collect::<Vec<_>>(), "{leases}");
}

fn dhcpcd() {
    let world = World::bare();
    let scene = Scene::of("dhcpcd", &world, 3600);
    scene.ns().run(&["dhcpcd", "-w", "eth0"]).assert_ok();
    scene.assert_ipv4();
    scene.assert_ipv6();
}

fn udhcpc() {
    let world = World::bare();
    let scene = Scene::of("udhcpc", &world, 3600);
    scene.ns().run(&["udhcpc", "-i", "eth0", "-n", "-p", "/run/udhcpc.pid"]).assert_ok();
    scene.assert_ipv4();
}

fn has_udhcpc6() -> Result<(), Skip> {
    let found = std::process::Command::new("busybox").args(["udhcpc6", "--help"]).output();
    match found {
        Ok(ran) if !String::from_utf8_lossy(&ran.stderr).contains("applet not found") => Ok(()),
        _ => Err(Skip("the busybox of this machine has no udhcpc6 (Debian builds it without)".to_owned())),
    }
}

fn udhcpc6() {
    let world = World::bare();
    let scene = Scene::of("udhcpc6", &world, 3600);
    scene.ns().run(&["busybox", "udhcpc6", "-i", "eth0", "-n", "-q", "-s", "/bin/true"]).assert_ok();
    assert!(scene.service.snapshot().v6.lease.is_some());
}

fn networkd() {
    let world = World::bare();
    let scene = Scene::of("networkd", &world, 3600);
    let _daemon = start_networkd(&world, scene.ns());
    scene.assert_ipv4();
    scene.assert_ipv6();
}

/// A NIC that gives no default route announces the networks behind its gateway (RFC 4191).
fn secondary_routes() {
    let world = World::bare();
    let pod = world.ns("pod");
    pod.sh(super::POD).assert_ok();
    let mut config = super::masquerade(3600);
    let v6 = config.v6.as_mut().unwrap();
    (v6.router_lifetime_seconds, v6.routes) = (0, vec!["fd99::/48".parse().unwrap()]);
    let service = DhcpService::start("secondary-routes", &pod, "svc-eth0", config);
    let guest = FakeGuest::plug(&world, "guest", &pod, "k6t-eth0", super::GUEST_MAC);
    let scene = Scene { guest, service, pod };
    let _daemon = start_networkd(&world, scene.ns());
    wait_for("the route to the network behind", super::PATIENCE, || {
        let routes = scene.ns().run(&["ip", "-j", "-6", "route", "show", "fd99::/48"]).json();
        routes.as_array()?.iter().any(|route| route["gateway"] == "fe80::ff:fe00:0").then_some(())
    });
    assert!(super::has_default(scene.ns(), "-6", "fe80::ff:fe00:0").is_none());
}

/// The kernel leaves the sum of a datagram from a socket to the device; the VM tap takes it so, the service tap does not.
fn checksums() {
    let world = World::bare();
    let scene = Scene::of("checksums", &world, 3600);
    scene.ns().sh("ip addr add 10.0.2.2/24 dev eth0; ip addr add fd10:0:2::2/120 dev eth0 nodad").assert_ok();
    scene.ns().sh("echo of a socket >/dev/udp/10.0.2.1/67; echo of a socket >/dev/udp/fd10:0:2::1/547").assert_ok();
    scene.wait("both datagrams", |seen| (seen.ignored.malformed >= 2).then_some(()));
    world.write("/run/seen.pcap", scene.service.pcap());
    let account = world.run(&["tcpdump", "-nvvr", "/run/seen.pcap", "udp and (port 67 or port 547)"]).text();
    assert_eq!(account.matches("udp sum ok").count(), 2, "{account}");
}
