//! Who is served: a guest under another name, with another's memory, with several NICs.

use dhcp::Observations;
use libtest_mimic::Trial;
use tests::{DhcpService, FakeGuest, World, trial};

use super::{ADDRESS, GUEST_MAC, POD, Scene, masquerade};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        // spec: DHCP-3
        trial("a guest that reboots as another system gets a lease", another_client),
        // spec: DHCP-3
        trial("a guest that requests a foreign address gets a NAK, then its own", foreign_lease),
        // spec: DHCP-4
        trial("dhclient -6 with another pod's address gets NotOnLink, then its own", foreign_lease6),
        // spec: DHCP-4
        trial("dhclient -6 that remembers its own address has it confirmed", confirmed_lease6),
        // spec: DHCP-10
        trial("a guest behind a masquerade is served at another Ethernet address", another_ethernet_address),
        trial("two NICs of one guest have a service each", two_nics),
    ]
}

fn another_client() {
    let world = World::bare();
    let scene = Scene::of("another-client", &world, 3600);
    let boot_as = |id: &str| {
        let files = format!("-lf /run/{id}.leases -pf /run/{id}.pid -cf /run/{id}.conf");
        world.write(&format!("/run/{id}.conf"), format!("send dhcp-client-identifier \"{id}\";\n"));
        scene.ns().sh(&format!("dhclient -4 -1 {files} eth0")).assert_ok();
        scene.assert_ipv4();
        files
    };
    let client_id = |seen: Observations| seen.v4.lease.map(|lease| lease.client_id);
    boot_as("first");
    assert_eq!(client_id(scene.service.snapshot()), Some(b"first".to_vec()));
    // Gone without a word, as a machine that is reset.
    scene.signal("-9", "/run/first.pid");
    scene.ns().sh("ip addr flush dev eth0 scope global").assert_ok();
    let files = boot_as("second");
    assert_eq!(client_id(scene.service.snapshot()), Some(b"second".to_vec()));
    scene.ns().sh(&format!("dhclient -4 -r {files} eth0")).assert_ok();
    scene.wait("the release", |seen| seen.v4.released_at);
    assert_eq!(scene.service.snapshot().v4.lease, None);
}

fn foreign_lease() {
    let world = World::bare();
    let scene = Scene::of("foreign-lease", &world, 3600);
    let lease = "lease { interface \"eth0\"; fixed-address 192.168.77.9; option subnet-mask 255.255.255.0;
        option dhcp-lease-time 86400; renew 6 2037/01/03 00:00:00; rebind 6 2037/01/03 00:00:00;
        expire 6 2037/01/03 00:00:00; }";
    world.write("/run/old.leases", lease);
    scene.ns().run(&["dhclient", "-4", "-1", "-lf", "/run/old.leases", "-pf", "/run/dh.pid", "eth0"]).assert_ok();
    scene.assert_ipv4();
    assert_eq!(scene.service.snapshot().v4.naks, 1);
}

/// A lease of an earlier start, when the pod had `address`, and what dhclient makes of it.
fn remembered6(address: &str) -> (World, String) {
    let world = World::bare();
    let lease = format!(
        "default-duid \"\\000\\003\\000\\001\\002\\000\\000\\000\\000\\007\";
lease6 {{ interface \"eth0\"; ia-na 00:00:00:07 {{ starts 2000000000; renew 3600; rebind 7200;
        iaaddr {address} {{ starts 2000000000; preferred-life 4294967295; max-life 4294967295; }} }}
        option dhcp6.client-id 0:3:0:1:2:0:0:0:0:7; option dhcp6.server-id 0:3:0:1:2:74:61:70:0:1; }}\n"
    );
    (world, lease)
}

fn ask_again6(scene: &Scene<'_>) {
    let files = ["-lf", "/run/old6.leases", "-pf", "/run/dh6.pid"];
    super::wait_link_local(scene.ns());
    scene.ns().run(&[&["dhclient", "-6", "-1", "-v"], &files[..], &["eth0"]].concat()).assert_ok();
    scene.assert_ipv6();
}

fn foreign_lease6() {
    // Within the prefix of the link, as the address of the pod's last start is.
    let (world, lease) = remembered6("fd10:0:2::77");
    let scene = Scene::of("foreign-lease6", &world, 3600);
    world.write("/run/old6.leases", lease);
    ask_again6(&scene);
    let seen = scene.service.snapshot().v6;
    assert!(seen.refusals >= 1 && seen.lease.is_some(), "{seen:?}");
    let held = scene.ns().run(&["ip", "-6", "addr", "show", "dev", "eth0"]).text();
    assert!(!held.contains("fd10:0:2::77"), "{held}");
}

fn confirmed_lease6() {
    let (world, lease) = remembered6("fd10:0:2::2");
    let scene = Scene::of("confirmed-lease6", &world, 3600);
    world.write("/run/old6.leases", lease);
    ask_again6(&scene);
    let seen = scene.service.snapshot().v6;
    assert_eq!((seen.refusals, seen.lease.map(|lease| lease.phase)), (0, Some(dhcp::Phase::Rebooting)));
}

fn another_ethernet_address() {
    let world = World::bare();
    let pod = world.ns("pod");
    pod.sh(POD).assert_ok();
    let config = dhcp::Config { any_client: true, ..masquerade(3600) };
    let service = DhcpService::start("another-ethernet-address", &pod, "svc-eth0", config);
    let guest = FakeGuest::plug(&world, "guest", &pod, "k6t-eth0", "02:00:00:00:00:99");
    let scene = Scene { guest, service, pod };
    scene.ns().run(&["dhclient", "-4", "-1", "-pf", "/run/dh.pid", "eth0"]).assert_ok();
    scene.assert_ipv4();
    super::run_dhclient6(scene.ns());
    scene.assert_ipv6();
    let clients = scene.service.snapshot().clients;
    assert_eq!(clients.iter().map(|(mac, _)| mac.to_string()).collect::<Vec<_>>(), ["02:00:00:00:00:99"]);
}

fn two_nics() {
    let world = World::bare();
    let pods = ["pod-a", "pod-b"].map(|name| {
        let pod = world.ns(name);
        pod.sh(POD).assert_ok();
        pod
    });
    let scenes = pods.map(|pod| {
        let (service_name, guest_name) = (format!("two-nics-{}", pod.name()), format!("guest-{}", pod.name()));
        let service = DhcpService::start(&service_name, &pod, "svc-eth0", masquerade(3600));
        let guest = FakeGuest::plug(&world, &guest_name, &pod, "k6t-eth0", GUEST_MAC);
        Scene { guest, service, pod }
    });
    // One machine with both NICs.
    scenes[1].ns().run(&["ip", "link", "set", "eth0", "netns", scenes[0].ns().name(), "name", "eth1"]).assert_ok();
    let guest = scenes[0].ns();
    guest.sh("ip link set eth1 up; udhcpc -i eth0 -nq; udhcpc -i eth1 -nq").assert_ok();
    for (scene, link) in scenes.iter().zip(["eth0", "eth1"]) {
        let addresses = guest.run(&["ip", "-4", "addr", "show", "dev", link]).text();
        assert!(addresses.contains(ADDRESS), "{link}: {addresses}");
        assert_eq!(scene.service.snapshot().v4.acks, 1);
    }
}
