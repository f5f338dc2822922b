//! A network with a bridge and addresses: `tapvisor-bridge` compared with the reference plugins, and with many reservations.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::{World, dist_file, inside};

use crate::Extent;
use crate::pods;
use crate::report::{Gate, Section, milliseconds};
use crate::rounds::{Ratio, Runs, turns};

const VERBS: [&str; 3] = ["ADD", "CHECK", "DEL"];

/// Who does it; of the second of each, the network has many reservations already.
const VARIANTS: [&str; 4] = [
    "reference `bridge` + `host-local`",
    "the same, 10,000 reservations",
    "tapvisor-bridge",
    "tapvisor-bridge, 10,000 reservations",
];
const PODS: [&str; 4] = ["theirs", "theirs-many", "ours", "ours-many"];
/// Pods that keep each bridge: what is measured is one attachment, not the making of the bridge.
const KEEPERS: [&str; 4] = ["k-theirs", "k-theirs-many", "k-ours", "k-ours-many"];

fn plugin(variant: usize) -> PathBuf {
    if variant < 2 { Path::new("/usr/lib/cni/bridge").to_owned() } else { dist_file("tapvisor-bridge") }
}

fn conf(variant: usize) -> Value {
    let name = PODS[variant];
    let subnet = format!("10.{}.0.0/16", 80 + variant);
    let ipam = json!({"type": "host-local", "dataDir": "/run/bench-leases", "ranges": [[{"subnet": subnet}]]});
    json!({"cniVersion": "1.0.0", "name": name, "type": "bridge", "bridge": format!("bench{variant}"), "isGateway": true, "ipam": ipam})
}

/// 10,000 reservations of other owners, the last of them the one that was made last.
fn reserve_many(world: &World) {
    for variant in [1, 3] {
        let folder = format!("/run/bench-leases/{}", PODS[variant]);
        let net = 80 + variant;
        world
            .sh(&format!(
                "mkdir -p {folder}; cd {folder}; for third in $(seq 0 39); do for last in $(seq 2 251); do
                    printf 'other\\r\\neth0' >10.{net}.$third.$last; done; done; printf 10.{net}.39.251 >last_reserved_ip.0"
            ))
            .assert_ok();
        let count = world.sh(&format!("ls {folder} | grep -c '^10'")).text();
        assert_eq!(count.trim(), "10000");
    }
}

pub(crate) fn measure(extent: Extent) -> Section {
    let world = World::new();
    reserve_many(&world);
    let all: Vec<_> = (0..VARIANTS.len()).map(|variant| (plugin(variant), conf(variant))).collect();
    pods::make_empty(&world, &KEEPERS);
    inside(&world, || {
        for ((plugin, conf), pod) in all.iter().zip(KEEPERS) {
            let _ = pods::call(plugin, "ADD", pod, conf, None).run();
        }
    });
    let mut runs = [(); 4].map(|()| [(); 3].map(|()| Runs::default()));
    for round in 0..extent.of(60) {
        pods::make_empty(&world, &PODS);
        inside(&world, || {
            let mut results = [const { None::<Value> }; 4];
            for (verb_index, verb) in VERBS.iter().enumerate() {
                for turn in turns(VARIANTS.len(), round) {
                    let (plugin, conf) = &all[turn];
                    let (took, text) = pods::call(plugin, verb, PODS[turn], conf, results[turn].as_ref()).run();
                    runs[turn][verb_index].add(took);
                    if *verb == "ADD" {
                        results[turn] = Some(serde_json::from_str(&text).expect("ADD answers with a result"));
                    }
                }
            }
        });
        pods::remove(&world, &PODS);
    }
    let mut rows = Vec::new();
    for (verb_index, verb) in VERBS.iter().enumerate() {
        rows.extend(VARIANTS.iter().zip(&runs).map(|(variant, runs)| {
            let runs = &runs[verb_index];
            vec![(*verb).to_owned(), (*variant).to_owned(), milliseconds(runs.wall()), milliseconds(runs.cpu())]
        }));
    }
    let ratio =
        |of: usize, to: usize, verb: usize| Ratio::between(runs[of][verb].wall(), runs[to][verb].wall()).medians;
    Section {
        title: "A bridge network with addresses, compared with the reference plugins",
        // spec: PERF-15
        command: "bench-bridge",
        head: vec!["", "plugins", "wall ms: min / **median** / p99 [middle half]", "CPU ms"],
        rows,
        gates: vec![
            Gate::at_least("ADD, faster than the reference", ratio(0, 2, 0), 5.0, "×"),
            Gate::at_least("CHECK, faster than the reference", ratio(0, 2, 1), 12.0, "×"),
            Gate::at_most("ADD with 10,000 reservations, of one with none", ratio(3, 2, 0), 2.0, "×"),
            Gate::at_most("DEL with 10,000 reservations, of one with none", ratio(3, 2, 2), 2.0, "×"),
        ],
        notes: vec![format!(
            "IPv4, the bridge is there already; n = {} of each cell, interleaved.",
            runs[0][0].count()
        )],
    }
}
