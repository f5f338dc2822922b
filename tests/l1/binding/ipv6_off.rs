//! Where the kernel has IPv6 off on new links, or takes it off them.

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{FakeGuest, World, trial};

use super::chain::{Chain, Stack, network, tapvisor, world};
use super::guest_limits::{V4, V6};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: CNI-MASQ-4
        trial("masquerade has both families where new links come without IPv6", off_by_default),
        // spec: CNI-MASQ-4
        trial("an IPv4-only pod takes an MTU that IPv6 does not, in both bindings", small_mtu),
    ]
}

/// A pod on ptp with a wiring, and a guest that reaches what `pings` names; nothing is left after DEL.
fn works(world: &World, stack: Stack, prepare: &str, interface: &Value, tap: &str, configure: &str, pings: &[&str]) {
    let mut chain = Chain::new(world, "pod", &[network("ptp", stack)]);
    chain.add();
    chain.settle();
    chain.pod().sh(prepare).assert_ok();
    let before = chain.pod().snapshot();
    chain.plugins.push(tapvisor(&json!([interface])));
    chain.call("ADD", 1, chain.result.as_ref()).assert_ok();
    chain.check();
    let link = chain.pod().run(&["ip", "-j", "link", "show", "eth0"]).json();
    let mac = if tap == "tap0" { link[0]["address"].as_str().unwrap() } else { "02:00:00:00:00:42" };
    let guest = FakeGuest::plug(world, "guest", chain.pod(), tap, mac);
    guest.ns().sh(configure).assert_ok();
    for to in pings {
        guest.ns().run(&["ping", "-c", "1", "-W", "20", to]).assert_ok();
    }
    drop(guest);
    chain.check();
    chain.call("DEL", 1, chain.result.as_ref()).assert_ok();
    before.assert_same(&chain.pod().snapshot());
    world.run(&["ip", "netns", "del", "pod"]).assert_ok();
}

fn off_by_default() {
    let masquerade = json!({"name": "default", "podInterface": "eth0", "binding": "masquerade"});
    let (both, pings) = (format!("{V4}; {V6}"), ["10.244.1.1", "fd00:10:244:1::1"]);
    works(
        &world(),
        Stack::Dual,
        "sysctl -qw net.ipv6.conf.default.disable_ipv6=1",
        &masquerade,
        "k6t-eth0",
        &both,
        &pings,
    );
}

fn small_mtu() {
    let request = |binding| json!({"name": "default", "podInterface": "eth0", "binding": binding, "mtu": 1000});
    works(&world(), Stack::V4, "true", &request("masquerade"), "k6t-eth0", V4, &["10.244.1.1"]);
    let own = "ip addr add 10.244.1.2/32 dev eth0; ip route add 10.244.1.1 dev eth0";
    works(&world(), Stack::V4, "true", &request("bridge"), "tap0", own, &["10.244.1.1"]);
}
