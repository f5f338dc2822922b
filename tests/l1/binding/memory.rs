//! How much memory a call may take, as the kernel counts it.

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Skip, World, dist_file, needs};

use super::chain::{Chain, Stack, network, tapvisor, world};

/// A mebibyte. Nearly all of it is the plugin's own file: `make order` when code has grown or moved.
const MOST_BYTES: u64 = 1 << 20;

pub(crate) fn trials() -> Vec<Trial> {
    vec![needs("no call of the plugin takes more than a mebibyte of memory", linked_with_musl, bounded)]
}

/// The other C library, with which machines without the musl target link the plugin, is larger by itself.
fn linked_with_musl() -> Result<(), Skip> {
    let plugin = std::fs::read(dist_file("tapvisor-cni")).expect("the plugin was built");
    let other = plugin.windows(5).any(|name| name == b"GLIBC");
    if other { Err(Skip("the plugin is linked with glibc, which is larger".to_owned())) } else { Ok(()) }
}

fn bounded() {
    let world = world();
    let ports = json!([{"protocol": "TCP", "port": 80}, {"protocol": "UDP", "port": 53}]);
    let interface = |binding: &str| json!({"name": "default", "podInterface": "eth0", "binding": binding});
    let mut masquerade = interface("masquerade");
    masquerade["ports"] = ports;
    let mut peaks = Vec::new();
    for (name, plugin) in [
        ("masquerade", tapvisor(&json!([masquerade]))),
        ("bridge", tapvisor(&json!([interface("bridge")]))),
        ("no request", json!({"type": "tapvisor"})),
    ] {
        let chain = pod(&world, &name.replace(' ', "-"), plugin);
        peaks.extend(["ADD", "CHECK", "DEL"].map(|verb| (format!("{verb}, {name}"), chain.peak_memory_bytes(verb))));
    }
    let newest = json!({"type": "tapvisor", "cniVersion": "1.1.0", "cni.dev/valid-attachments": []});
    let chain = pod(&world, "newest", newest);
    peaks.extend(["VERSION", "STATUS", "GC"].map(|verb| (verb.to_owned(), chain.peak_memory_bytes(verb))));
    for (call, bytes) in &peaks {
        println!("{call}: {bytes} bytes");
    }
    let beyond: Vec<_> = peaks.iter().filter(|(_, bytes)| *bytes > MOST_BYTES).collect();
    assert!(beyond.is_empty(), "more than {MOST_BYTES} bytes: {beyond:?}");
}

/// A pod with a network, to which a plugin is to be added.
fn pod<'w>(world: &'w World, name: &str, plugin: Value) -> Chain<'w> {
    let mut chain = Chain::new(world, name, &[network("bridge", Stack::Dual)]);
    chain.add();
    chain.plugins.push(plugin);
    chain
}
