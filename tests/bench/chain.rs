//! A whole attachment: a reference plugin alone, and with ours after it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::{Program, Took, World, dist_file, inside};

use crate::Extent;
use crate::pods;
use crate::report::{Gate, Section, milliseconds};
use crate::rounds::{Runs, turns};

const VERBS: [&str; 3] = ["ADD", "CHECK", "DEL"];

/// What is executed after `ptp`.
const VARIANTS: [(&str, Option<Option<&str>>); 4] = [
    ("ptp alone", None),
    ("ptp, tapvisor passing through", Some(None)),
    ("ptp, tapvisor masquerade", Some(Some("masquerade"))),
    ("ptp, tapvisor bridge", Some(Some("bridge"))),
];
const PODS: [&str; 4] = ["alone", "through", "masquerade", "bridge"];

fn ptp() -> Value {
    let ranges = json!([[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:10:244:1::/64"}]]);
    let ipam = json!({"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]});
    json!({"cniVersion": "1.0.0", "name": "bench", "type": "ptp", "ipam": ipam})
}

/// Plugins in the order of ADD, with their configurations.
fn plugins(variant: usize) -> Vec<(PathBuf, Value)> {
    let mut plugins = vec![(Path::new("/usr/lib/cni/ptp").to_owned(), ptp())];
    if let Some(binding) = VARIANTS[variant].1 {
        plugins.push((dist_file("tapvisor-cni"), pods::tapvisor(binding)));
    }
    plugins
}

fn execute(plugins: &[(PathBuf, Value)], verb: &str, pod: &str, result: &mut Option<Value>) -> Took {
    let mut order: Vec<_> = plugins.iter().collect();
    if verb == "DEL" {
        order.reverse();
    }
    let mut sum = Took::default();
    for (plugin, conf) in order {
        let program: Program = pods::call(plugin, verb, pod, conf, result.as_ref());
        let (took, text) = program.run();
        sum.wall += took.wall;
        sum.cpu += took.cpu;
        if verb == "ADD" {
            *result = Some(serde_json::from_str(&text).expect("ADD answers with a result"));
        }
    }
    sum
}

pub(crate) fn measure(extent: Extent) -> Section {
    let world = World::new();
    let mut runs = [(); 4].map(|()| [(); 3].map(|()| Runs::default()));
    let all: Vec<_> = (0..VARIANTS.len()).map(plugins).collect();
    for round in 0..extent.of(40) {
        pods::make_empty(&world, &PODS);
        inside(&world, || {
            let mut results = [const { None }; 4];
            for (verb_index, verb) in VERBS.iter().enumerate() {
                for turn in turns(VARIANTS.len(), round) {
                    runs[turn][verb_index].add(execute(&all[turn], verb, PODS[turn], &mut results[turn]));
                }
            }
        });
        pods::remove(&world, &PODS);
    }
    let mut rows = Vec::new();
    for (verb_index, verb) in VERBS.iter().enumerate() {
        let alone = runs[0][verb_index].wall().median;
        for (variant, runs) in VARIANTS.iter().zip(&runs) {
            let runs = &runs[verb_index];
            let more = runs.wall().median.as_secs_f64() * 1e3 - alone.as_secs_f64() * 1e3;
            let more = if variant.1.is_none() { "–".to_owned() } else { format!("{more:+.2}") };
            rows.push(vec![
                (*verb).to_owned(),
                variant.0.to_owned(),
                milliseconds(runs.wall()),
                milliseconds(runs.cpu()),
                more,
            ]);
        }
    }
    Section {
        title: "A whole attachment with the distribution's ptp and host-local",
        // spec: PERF-5
        command: "bench-chain",
        head: vec!["", "plugins", "wall ms: min / **median** / p99 [middle half]", "CPU ms", "added to the median, ms"],
        rows,
        gates: Vec::<Gate>::new(),
        notes: vec![
            format!("Dual-stack; the sum of the plugins' processes, without a runtime; n = {}.", runs[0][0].count()),
            "Duplicate address detection is off in these pods: with it, ptp's ADD waits one to three seconds for its own address."
                .to_owned(),
        ],
    }
}
