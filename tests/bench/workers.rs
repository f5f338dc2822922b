//! ADD by several workers at once, each on pods of its own: how many a second.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Program, World, dist_file, inside};

use crate::Extent;
use crate::pods;
use crate::recording::Part;
use crate::report::{Gate, Section};
use crate::rounds::{Spread, turns};
use crate::wiring::Case;

const WORKERS: [usize; 4] = [1, 2, 4, 8];

/// Pods for each variant in a turn.
const PODS: usize = 16;

/// Who does the work; pods of the first two have a network already.
const VARIANTS: [&str; 4] = [
    "tapvisor, masquerade",
    "floor: its kernel calls replayed",
    "reference `bridge` + `host-local`",
    "tapvisor-bridge",
];

/// The reference plugins' configuration; leases go to `folder`.
pub(crate) fn reference(folder: &str) -> Value {
    let ipam = json!({"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]], "dataDir": folder});
    json!({"cniVersion": "1.0.0", "name": "peer", "type": "bridge", "bridge": "cni0", "isGateway": true, "ipam": ipam})
}

/// ADD of a variant on a pod.
pub(crate) fn program(variant: usize, case: &Case, pod: &str, folder: &str) -> Program {
    match variant {
        0 => case.call("ADD", pod),
        1 => case.replay("ADD", pod, Part::All),
        2 => pods::call(Path::new("/usr/lib/cni/bridge"), "ADD", pod, &reference(folder), None),
        _ => pods::call(&dist_file("tapvisor-bridge"), "ADD", pod, &reference(folder), None),
    }
}

/// Makes pods as a variant wants them.
pub(crate) fn make(world: &World, variant: usize, names: &[&str]) {
    if variant < 2 { pods::make(world, names) } else { pods::make_empty(world, names) }
}

pub(crate) fn measure(extent: Extent) -> Section {
    let world = World::bare();
    let case = Case::record(&world, "masquerade");
    let names: Vec<String> = (0..PODS).map(|number| format!("p{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut rates = [(); 4].map(|()| WORKERS.map(|_| Vec::new()));
    for round in 0..extent.of(15) {
        for (at, workers) in WORKERS.into_iter().enumerate() {
            for variant in turns(VARIANTS.len(), round) {
                make(&world, variant, &names);
                let programs: Vec<Program> =
                    names.iter().map(|pod| program(variant, &case, pod, "/run/leases")).collect();
                rates[variant][at].push(all(&world, &programs, workers));
                pods::remove(&world, &names);
                world.sh("rm -rf /run/leases /run/tapvisor/bridge /run/tapvisor/addresses; ip link delete cni0 2>/dev/null || true").assert_ok();
            }
        }
    }
    let median = |variant: usize, at: usize| per_second(Spread::of(rates[variant][at].clone()).median);
    let rows = VARIANTS.iter().enumerate().map(|(variant, name)| {
        let cells = rates[variant].iter().map(|turns| {
            let spread = Spread::of(turns.clone());
            let [slowest, median, fastest] = [spread.p99, spread.median, spread.min].map(per_second);
            format!("{slowest:.0} / **{median:.0}** / {fastest:.0}")
        });
        std::iter::once((*name).to_owned()).chain(cells).collect()
    });
    let last = WORKERS.len() - 1;
    Section {
        title: "ADD by several workers at once",
        // spec: PERF-6
        command: "bench-workers",
        head: vec!["ADD per second: least / **median** / most", "1 worker", "2", "4", "8"],
        rows: rows.collect(),
        gates: vec![
            Gate::at_least("8 workers, of the floor", 100.0 * median(0, last) / median(1, last), 60.0, "%"),
            Gate::at_least("8 workers, compared with the reference `bridge`", median(0, last) / median(2, last), 1.0, "×"),
            Gate::at_least(
                "8 workers, tapvisor-bridge compared with the reference `bridge`",
                median(3, last) / median(2, last),
                2.0,
                "×",
            ),
        ],
        notes: vec![
            format!("{PODS} pods a turn, n = {} turns of each cell, interleaved.", rates[0][0].len()),
            "The reference and tapvisor-bridge make bridge, veth, address and lease; tapvisor and its floor find a network and wire it. All is CPU time in kernel \
             and program, so more workers than processors bring nothing."
                .to_owned(),
        ],
    }
}

fn per_second(all: Duration) -> f64 {
    let pods = u32::try_from(PODS).map_or(0.0, f64::from);
    pods / all.as_secs_f64()
}

/// The time until `workers` have run all programs, each taking the next free one.
fn all(world: &World, programs: &[Program], workers: usize) -> Duration {
    let (next, ready) = (AtomicUsize::new(0), std::sync::Barrier::new(workers + 1));
    std::thread::scope(|scope| {
        let work = || {
            inside(world, || {
                ready.wait();
                while let Some(program) = programs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    program.run();
                }
            });
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        ready.wait();
        let start = Instant::now();
        threads.into_iter().for_each(|thread| thread.join().expect("every ADD succeeds"));
        start.elapsed()
    })
}
