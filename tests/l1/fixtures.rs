//! The fixtures themselves: a world hides what happens in it, and a fake guest carries what a guest would send.

use std::time::Duration;

use libtest_mimic::Trial;
use tests::{FakeGuest, Outside, World, exchange, trial, wait_for};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a world has an uplink with both default routes and reaches the outside", uplink),
        trial("what happens in a world is not seen on the machine and dies with it", isolation),
        trial("a snapshot tells a changed sysctl, link, route and rule from none", snapshot_tells),
        trial("a fake guest moves large TCP streams through a tap with offloads", fake_guest_streams),
    ]
}

/// Nothing here takes so long, however busy the machine.
const LONG: Duration = Duration::from_secs(60);

fn uplink() {
    let world = World::new();
    let routes = world.run(&["ip", "-6", "route", "show", "default"]).text();
    assert!(routes.contains("proto ra"), "{routes}");
    for address in [Outside::V4.to_owned(), format!("[{}]", Outside::V6)] {
        let page = world.run(&["busybox", "wget", "-qO-", &format!("http://{address}/")]).text();
        assert!(page.starts_with("outside sees "), "{page}");
    }
}

fn isolation() {
    let machine = || std::fs::read_to_string("/proc/net/dev").unwrap();
    let links = |text: String| {
        text.lines().filter_map(|l| l.split_once(':').map(|(n, _)| n.trim().to_owned())).collect::<Vec<_>>()
    };
    let before = links(machine());
    let world = World::new();
    world
        .sh("ip link add br0 type bridge; touch /run/tv-mark /etc/tv-mark /var/tv-mark; sleep 1000 >/dev/null 2>&1 &")
        .assert_ok();
    for path in ["/run/tv-mark", "/etc/tv-mark", "/var/tv-mark"] {
        assert!(world.path(path).exists(), "{path}");
        assert!(!std::path::Path::new(path).exists(), "{path} is on the machine");
    }
    wait_for("the sleeper", LONG, || world.run(&["pidof", "sleep"]).is_ok().then_some(()));
    assert_eq!(links(machine()), before);
    let first = world.path("/");
    drop(world);
    wait_for("the world's end", LONG, || (!first.exists()).then_some(()));
}

fn snapshot_tells() {
    let world = World::new();
    let before = world.snapshot();
    before.assert_same(&world.snapshot());
    let change_by_change = [
        ("sysctl -qw net.ipv4.ip_forward=1", "sysctl net"),
        ("ip link add br0 type bridge", "ip link"),
        ("ip route add 203.0.113.0/24 via 192.0.2.1", "ip route"),
        ("ip rule add fwmark 7 table 7", "ip rule"),
        ("nft add table inet x", "nft"),
        ("iptables -t nat -A POSTROUTING -j MASQUERADE", "iptables-save"),
    ];
    for (change, section) in change_by_change {
        let before = world.snapshot();
        world.sh(change).assert_ok();
        let changes = before.changes(&world.snapshot());
        assert!(changes.lines().any(|line| line[2..].starts_with(section)), "{change}:\n{changes}");
    }
}

fn fake_guest_streams() {
    const BYTES: usize = 20_000_000;
    let world = World::bare();
    let pod = world.ns("pod");
    pod.sh("ip tuntap add tap0 mode tap vnet_hdr; ip link set tap0 mtu 9000; ip addr add 10.0.2.1/24 dev tap0; ip link set tap0 up").assert_ok();
    let guest = FakeGuest::plug(&world, "guest", &pod, "tap0", "02:00:00:00:00:07");
    guest.ns().run(&["ip", "addr", "add", "10.0.2.2/24", "dev", "eth0"]).assert_ok();
    pod.run(&["ping", "-c", "1", "-W", "20", "10.0.2.2"]).assert_ok();
    let chain = "add chain inet seen in { type filter hook input priority 0; }";
    for line in ["add table inet seen", chain, "add rule inet seen in meta length gt 9000 counter"] {
        guest.ns().run(&["nft", line]).assert_ok();
    }
    let seen = exchange(guest.ns(), &pod, "10.0.2.2".parse().unwrap(), BYTES);
    assert_eq!(seen.to_string(), "10.0.2.1");
    // Acknowledgements are small, and how many there are depends on how busy the machine is.
    let listing = guest.ns().run(&["nft", "-j", "list", "chain", "inet", "seen", "in"]).json();
    let rules = listing["nftables"].as_array().unwrap().iter().filter_map(|entry| entry.get("rule"));
    let bytes: u64 = rules.filter_map(|rule| rule["expr"][1]["counter"]["bytes"].as_u64()).sum();
    assert!(
        bytes > BYTES as u64 / 2,
        "{bytes} of {BYTES} bytes came in packets above the MTU: no segmentation offload"
    );
}
