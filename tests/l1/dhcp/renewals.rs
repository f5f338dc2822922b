//! Leases that go on: by unicast to the server, by broadcast when it does not answer.

use dhcp::{Observations, Phase};
use libtest_mimic::Trial;
use tests::{World, trial};

use super::{Scene, run_dhclient6, start_networkd};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        // spec: DHCP-2
        trial("dhclient renews by unicast and rebinds by broadcast", dhclient_renews),
        trial("dhcpcd renews both families", dhcpcd_renews),
        trial("udhcpc renews by unicast and releases", udhcpc_renews),
        trial("systemd-networkd renews both families", networkd_renews),
        trial("dhclient -6 renews", dhclient6_renews),
    ]
}

fn phase4(seen: &Observations) -> Option<Phase> {
    seen.v4.lease.as_ref().map(|lease| lease.phase)
}

fn phase6(seen: &Observations) -> Option<Phase> {
    seen.v6.lease.as_ref().map(|lease| lease.phase)
}

fn dhclient_renews() {
    let world = World::bare();
    let scene = Scene::of("dhclient-renews", &world, 24);
    // Between rebinding and the lease's end are three seconds: dhclient's own pauses, random and of ten seconds and more, jump over
    // them as often as not.
    world.write("/run/dhclient.conf", "initial-interval 1;\nbackoff-cutoff 2;\n");
    let files = ["-cf", "/run/dhclient.conf", "-pf", "/run/dhclient4.pid"];
    scene.ns().run(&[&["dhclient", "-4", "-1"], &files[..], &["eth0"]].concat()).assert_ok();
    scene.wait("a renewal", |seen| (phase4(seen) == Some(Phase::Renewing)).then_some(()));
    // Renewals no longer arrive: the client must fall back to asking anybody.
    scene.pod.run(&["nft", "insert rule netdev tapvisor vm ip daddr 10.0.2.1 udp dport 67 drop"]).assert_ok();
    scene.wait("a rebinding", |seen| (phase4(seen) == Some(Phase::Rebinding)).then_some(()));
    scene.assert_ipv4();
}

fn dhclient6_renews() {
    let world = World::bare();
    let scene = Scene::of("dhclient6-renews", &world, 8);
    run_dhclient6(scene.ns());
    scene.wait("a renewal", |seen| (phase6(seen) == Some(Phase::Renewing)).then_some(()));
    scene.assert_ipv6();
}

fn dhcpcd_renews() {
    let world = World::bare();
    // dhcpcd does not believe in leases below 20 seconds.
    let scene = Scene::of("dhcpcd-renews", &world, 24);
    scene.ns().run(&["dhcpcd", "-w", "eth0"]).assert_ok();
    scene.wait("a renewal", |seen| (phase4(seen) == Some(Phase::Renewing)).then_some(()));
    scene.wait("a DHCPv6 renewal", |seen| (phase6(seen) == Some(Phase::Renewing)).then_some(()));
    scene.assert_ipv4();
    scene.assert_ipv6();
}

fn udhcpc_renews() {
    let world = World::bare();
    // udhcpc does not believe in leases below a minute of waiting: it is told to renew.
    let scene = Scene::of("udhcpc-renews", &world, 3600);
    scene.ns().run(&["udhcpc", "-i", "eth0", "-n", "-p", "/run/udhcpc.pid"]).assert_ok();
    scene.assert_ipv4();
    scene.signal("-USR1", "/run/udhcpc.pid");
    scene.wait("a renewal", |seen| (phase4(seen) == Some(Phase::Renewing)).then_some(()));
    scene.signal("-USR2", "/run/udhcpc.pid");
    scene.wait("the release", |seen| seen.v4.released_at);
}

fn networkd_renews() {
    let world = World::bare();
    let scene = Scene::of("networkd-renews", &world, 10);
    let _daemon = start_networkd(&world, scene.ns());
    scene.wait("a renewal", |seen| (phase4(seen) == Some(Phase::Renewing)).then_some(()));
    scene.wait("a DHCPv6 renewal", |seen| (phase6(seen) == Some(Phase::Renewing)).then_some(()));
    scene.assert_ipv4();
    scene.assert_ipv6();
}
