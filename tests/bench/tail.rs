//! The slowest ADDs while a process writes to the disk: a plugin that waits for a journal shows here.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tests::{World, inside};

use crate::Extent;
use crate::pods;
use crate::report::{Gate, Section, milliseconds, short};
use crate::rounds::{Runs, turns};
use crate::wiring::Case;
use crate::workers::{make, program};

const VARIANTS: [&str; 3] =
    ["tapvisor, masquerade", "floor: its kernel calls replayed", "reference `bridge` + `host-local`"];

/// Pods of each variant in a round.
const PODS: usize = 10;

pub(crate) fn measure(extent: Extent) -> Section {
    let world = World::bare();
    let case = Case::record(&world, "masquerade");
    // A folder of the machine's disk: what a world has below /var is in memory.
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let leases = folder.path().join("leases").display().to_string();
    let quiet = runs(&world, &case, &leases, extent.of(10));
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let busy = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(folder.path(), &stop, &written));
        let busy = runs(&world, &case, &leases, extent.of(20));
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the disk takes what is written");
        busy
    });
    let mut rows = Vec::new();
    for (variant, name) in VARIANTS.iter().enumerate() {
        for (what, runs) in [("quiet", &quiet[variant]), ("written to", &busy[variant])] {
            let wall = runs.wall();
            let to_median = format!("{:.1} ×", tail(runs));
            rows.push(vec![(*name).to_owned(), what.to_owned(), milliseconds(wall), short(wall.p99), to_median]);
        }
    }
    Section {
        title: "ADD while the disk is written to",
        // spec: PERF-7
        command: "bench-tail",
        head: vec!["", "disk", "wall ms: min / **median** / p99 [middle half]", "p99 ms", "p99 to the median"],
        rows,
        gates: vec![Gate::at_most("p99 of ADD to its median, disk written to", tail(&busy[0]), 3.0, "×")],
        notes: vec![
            format!(
                "n = {} (quiet) and {}; one writer of 4 MiB and fdatasync in a loop, {} MiB meanwhile; the reference keeps its leases \
                 on that disk, as by default.",
                quiet[0].count(),
                busy[0].count(),
                written.load(Ordering::Relaxed)
            ),
            "What other work on the machine does to the tail is in all rows alike; the floor's shows it.".to_owned(),
        ],
    }
}

fn tail(runs: &Runs) -> f64 {
    runs.wall().p99.as_secs_f64() / runs.wall().median.as_secs_f64()
}

fn runs(world: &World, case: &Case, leases: &str, rounds: usize) -> [Runs; 3] {
    let mut runs = [(); 3].map(|()| Runs::default());
    let in_turn: Vec<[String; 3]> =
        (0..PODS).map(|number| [0, 1, 2].map(|variant| format!("v{variant}p{number}"))).collect();
    let names = [0, 1, 2].map(|variant| in_turn.iter().map(|pods| pods[variant].as_str()).collect::<Vec<_>>());
    for round in 0..rounds {
        names.iter().enumerate().for_each(|(variant, names)| make(world, variant, names));
        inside(world, || {
            for (number, pods) in in_turn.iter().enumerate() {
                for variant in turns(VARIANTS.len(), round + number) {
                    runs[variant].add(program(variant, case, &pods[variant], leases).run().0);
                }
            }
        });
        names.iter().for_each(|names| pods::remove(world, names));
        let _ = std::fs::remove_dir_all(leases);
        world.sh("ip link delete cni0").assert_ok();
    }
    runs
}

/// Writes and syncs until told to stop; counts MiB.
fn write(folder: &Path, stop: &AtomicBool, written: &AtomicU64) {
    const MIB: usize = 1 << 20;
    let mut file = File::create(folder.join("written")).expect("a file can be made");
    let block = vec![0x5a; 4 * MIB];
    while !stop.load(Ordering::Relaxed) {
        // The same 64 MiB over and over.
        if written.load(Ordering::Relaxed).is_multiple_of(64) {
            file.seek(SeekFrom::Start(0)).expect("a file has a beginning");
        }
        file.write_all(&block).and_then(|()| file.sync_data()).expect("the disk takes it");
        written.fetch_add(4, Ordering::Relaxed);
    }
}
