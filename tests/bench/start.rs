//! What executing the plugin costs before it has anything to do: VERSION, a pod without a request, sizes.

use std::path::Path;

use tests::{Program, World, count, dist_file, inside, instructions};

use crate::report::{Gate, Section, grouped, milliseconds, times};
use crate::rounds::{Ratio, Runs, turns};
use crate::{Extent, pods};

pub(crate) fn measure(extent: Extent) -> Section {
    let world = World::bare();
    pods::make(&world, &["pod"]);
    let ours = dist_file("tapvisor-cni");
    let reference = Path::new("/usr/lib/cni/bridge");
    let through = pods::call(&ours, "ADD", "pod", &pods::tapvisor(None), Some(&pods::previous()));
    let variants: [(&str, Program); 3] = [
        ("tapvisor, VERSION", pods::call(&ours, "VERSION", "pod", &pods::tapvisor(None), None)),
        ("tapvisor, ADD of a pod without request", through),
        (
            "reference `bridge` (Debian 1.1.1), VERSION",
            pods::call(reference, "VERSION", "pod", &pods::tapvisor(None), None),
        ),
    ];
    let mut runs = [(); 3].map(|()| Runs::default());
    inside(&world, || {
        for round in 0..extent.of(300) {
            for turn in turns(variants.len(), round) {
                runs[turn].add(variants[turn].1.run().0);
            }
        }
    });
    let mut rows = Vec::new();
    for ((name, program), runs) in variants.iter().zip(&runs) {
        let calls = count(&world, program);
        let instructions = instructions(&world, program).map_or_else(|| "–".to_owned(), grouped);
        rows.push(vec![
            (*name).to_owned(),
            milliseconds(runs.wall()),
            milliseconds(runs.cpu()),
            calls.system_calls.to_string(),
            instructions,
            grouped(calls.peak_rss_bytes),
        ]);
    }
    let [version, through, reference] = &runs;
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    #[expect(clippy::cast_precision_loss, reason = "sizes of files are far below 2^52")]
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let own = through.wall().median.saturating_sub(version.wall().median);
    Section {
        title: "Executing the plugin",
        // spec: PERF-1
        command: "bench-start",
        head: vec![
            "",
            "wall ms: min / **median** / p99 [middle half]",
            "CPU ms",
            "system calls",
            "instructions in user space",
            "peak RSS, bytes",
        ],
        rows,
        gates: vec![
            Gate::at_most("binary", megabytes(size(&ours)), 2.0, "MB"),
            Gate::at_most(
                "own time of a pod without request (median less that of VERSION)",
                own.as_secs_f64() * 1e3,
                1.0,
                "ms",
            ),
        ],
        notes: vec![
            format!(
                "VERSION compared with the reference's: {}; n = {}.",
                times(Ratio::between(reference.wall(), version.wall())),
                version.count()
            ),
            format!("Reference `bridge`: {} bytes.", grouped(size(Path::new("/usr/lib/cni/bridge")))),
        ],
    }
}
