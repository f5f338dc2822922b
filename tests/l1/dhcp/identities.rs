//! Who is served: a guest under another name, with another's memory, with several NICs.

use dhcp::Observations;
use libtest_mimic::Trial;
use tests::{DhcpService, FakeGuest, World, trial};

use super::{ADDRESS, GUEST_MAC, POD, Scene, masquerade};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("a guest that reboots as another system is served, and a released lease is gone", another_client),
        trial("a guest that remembers a foreign address is refused it and gets its own", foreign_lease),
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
