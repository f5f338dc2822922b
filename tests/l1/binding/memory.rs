//! How much memory a call may take, as the kernel counts it.

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Counts, Skip, World, dist_file, needs};

use super::chain::{Chain, Stack, network, tapvisor, world};

/// Resident memory, most of which is the plugin's own file: 1.5 MiB.
const RESIDENT_BYTES: u64 = 3 << 19;

/// Memory that no other process shares: 0.5 MiB.
const PRIVATE_BYTES: u64 = 1 << 19;

pub(crate) fn trials() -> Vec<Trial> {
    // spec: PERF-3
    vec![needs("a call takes at most 1.5 MiB of memory, 0.5 MiB of it private", linked_with_musl, bounded)]
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
        peaks.extend(["ADD", "CHECK", "DEL"].map(|verb| (format!("{verb}, {name}"), chain.counts(verb))));
    }
    let own = json!({"type": "tapvisor-bridge", "bridge": "own0", "isGateway": true, "ipMasq": true, "macspoofchk": true,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.1.0/24"}], [{"subnet": "fd77:1::/64"}]]}});
    let mut chain = Chain::new(&world, "own", &[own]);
    let mut network = |chain: &Chain<'_>, verb: &str| peaks.push((format!("{verb}, network"), chain.counts(verb)));
    network(&chain, "ADD");
    network(&chain, "DEL");
    chain.add();
    network(&chain, "CHECK");
    let newest = json!({"type": "tapvisor", "cniVersion": "1.1.0", "cni.dev/valid-attachments": []});
    let chain = pod(&world, "newest", newest);
    peaks.extend(["VERSION", "STATUS", "GC"].map(|verb| (verb.to_owned(), chain.counts(verb))));
    for (call, counts) in &peaks {
        println!("{call}: {} bytes resident, {} private", counts.peak_rss_bytes, counts.private_bytes);
        assert!(counts.peak_rss_bytes > counts.private_bytes && counts.private_bytes > 0, "{call}: {counts:?}");
    }
    let is_beyond = |counts: &Counts| counts.peak_rss_bytes > RESIDENT_BYTES || counts.private_bytes > PRIVATE_BYTES;
    let beyond: Vec<_> = peaks.iter().filter(|(_, counts)| is_beyond(counts)).collect();
    assert!(beyond.is_empty(), "more than {RESIDENT_BYTES} bytes, or {PRIVATE_BYTES} private: {beyond:?}");
}

/// A pod with a network, to which a plugin is to be added.
fn pod<'w>(world: &'w World, name: &str, plugin: Value) -> Chain<'w> {
    let mut chain = Chain::new(world, name, &[network("bridge", Stack::Dual)]);
    chain.add();
    chain.plugins.push(plugin);
    chain
}
