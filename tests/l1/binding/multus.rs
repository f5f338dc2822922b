//! Behind Multus, which no annotation passes: a trailing attachment wires the interfaces of all the others.

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{cache_file, trial};

use super::chain::{Chain, Stack, network, tapvisor, world};

pub(crate) fn trials() -> Vec<Trial> {
    // spec: CNI-ADD-4
    vec![trial("Multus runs ADD, CHECK and DEL of a trailing attachment", every_verb)]
}

/// Multus without an API server: the attachments stand in its configuration, and it names their interfaces.
fn multus() -> Value {
    let mut blue = network("bridge", Stack::V4);
    blue["ipam"]["ranges"] = json!([[{"subnet": "10.245.0.0/24"}]]);
    blue["bridge"] = json!("blue0");
    blue["name"] = json!("blue");
    let interfaces = json!([
        {"name": "default", "podInterface": "eth0", "binding": "masquerade"},
        {"name": "blue", "podInterface": "net1", "binding": "bridge"},
    ]);
    // As Multus writes the element's `cni-args` into a configuration.
    let wiring = tapvisor(&interfaces)["wiring"].clone();
    let trailing = json!({"type": "tapvisor", "name": "wiring", "args": {"cni": {"wiring": wiring}}});
    let pods = json!({"name": "pods", "plugins": [network("ptp", Stack::Dual), {"type": "tapvisor"}]});
    let delegates = [pods, blue, trailing].map(|mut delegate| {
        delegate["cniVersion"] = json!("1.0.0");
        delegate
    });
    json!({"type": "multus", "cniDir": "/run/multus", "binDir": "/usr/lib/cni", "delegates": delegates})
}

fn every_verb() {
    let world = world();
    world.install(&cache_file("go/multus/multus"), "/opt/cni/bin/multus");
    let mut chain = Chain::new(&world, "pod", &[multus()]);
    chain.folder = "/opt/cni/bin".to_owned();
    let before = chain.pod().snapshot();
    chain.add();
    let result = chain.result.as_ref().expect("ADD has answered");
    assert!(!result.to_string().contains("k6t-"), "a tap is no interface of the pod: {result}");
    for tap in ["k6t-eth0", "tap-net1"] {
        let links = chain.pod().run(&["ip", "-j", "link", "show", "dev", tap]).json();
        let mark = links[0]["ifalias"].as_str().unwrap_or_default();
        assert!(mark.starts_with("tapvisor/") && !mark.contains(" 0000000000000000"), "{links}");
    }
    chain.settle();
    chain.check();
    chain.pod().run(&["ip", "link", "set", "tap-net1", "down"]).assert_ok();
    let message = chain.check_fails();
    assert!(message.contains("tap-net1"), "{message}");
    chain.del();
    before.assert_same(&chain.pod().snapshot());
}
