//! From the execution of a VMM to the guest's first instruction and to its first process.

use super::{Counts, MACHINES, in_units, lab, run};
use crate::Extent;
use crate::report::{Gate, Section, grouped};
use crate::rounds::turns;

const KERNELS: [&str; 2] = ["vmlinux", "bzImage"];
const MILLION: u64 = 1_000_000;
/// Kinds of exits in a row.
const KINDS: usize = 6;

pub(crate) fn measure(extent: Extent) -> Section {
    let mut lab = lab();
    let mut found: Vec<(&str, &str, Counts)> = Vec::new();
    for round in 0..extent.of(2) {
        for kernel in KERNELS {
            for turn in turns(MACHINES.len(), round) {
                let (machine, _) = MACHINES[turn];
                let counts = run(&mut lab, include_str!("start.sh"), &[("VMM", machine), ("KERNEL", kernel)]);
                match found.iter_mut().find(|(of, with, _)| (*of, *with) == (machine, kernel)) {
                    // Ticks of the host's clock are between the instructions that are counted: the least has the fewest.
                    Some((_, _, before)) if counts.one("init") < before.one("init") => *before = counts,
                    Some(_) => {}
                    None => found.push((machine, kernel, counts)),
                }
            }
        }
    }
    let of = |machine: &str, kernel: &str| {
        found.iter().find(|(of, with, _)| (*of, *with) == (machine, kernel)).map(|(_, _, counts)| counts)
    };
    let pairs = KERNELS.iter().flat_map(|kernel| MACHINES.map(|(machine, name)| (machine, name, *kernel)));
    let rows = pairs.filter_map(|(machine, name, kernel)| Some(row(name, kernel, of(machine, kernel)?))).collect();
    let ours = |kernel, name| of("vmm-boot", kernel).map_or(u64::MAX, |counts| counts.one(name));
    let at_most =
        |what: &str, number, unit, bound, name: &str| Gate::at_most(what, in_units(number, unit), bound, name).exact();
    Section {
        title: "Our machine: start and boot",
        // spec: PERF-13
        command: "bench-vmm",
        head: vec![
            "",
            "kernel",
            "execution to first KVM_RUN, M instructions",
            "system calls until then",
            "execution to init, M instructions",
            "exits to init",
            "of ports, of memory",
            "by kind",
        ],
        rows,
        gates: vec![
            at_most("execution to first KVM_RUN, bzImage", ours("bzImage", "first") * 1000, MILLION, 25.0, "M"),
            at_most("system calls until then, vmlinux", ours("vmlinux", "calls"), 1, 300.0, "calls"),
            at_most("execution to init, vmlinux", ours("vmlinux", "init") * 1000, MILLION, 1500.0, "M"),
            at_most("exits to init, vmlinux", ours("vmlinux", "exits"), 1, 3500.0, "exits"),
        ],
        notes: vec![
            "In the lab's host, one processor, `-icount shift=0,sleep=off`: instructions of host kernel, VMM and guest together. \
             1 processor and 128 MiB, no NIC."
                .to_owned(),
            "A vmlinux has 46 MB to load, a bzImage 14 MB; the bound for the first KVM_RUN is that of peers with a bzImage \
             (Firecracker 18.3 M, Cloud Hypervisor 23.9 M; with a vmlinux of 33 MB 45.1 M and 51.3 M)."
                .to_owned(),
            "Init is counted without the trace of exits; an exit by a fault on an address without memory counts as npf."
                .to_owned(),
        ],
    }
}

fn row(name: &str, kernel: &str, counts: &Counts) -> Vec<String> {
    let kinds = counts.beginning("kind:");
    let kinds: Vec<_> = kinds.iter().take(KINDS).map(|(kind, number)| format!("{kind} {}", grouped(*number))).collect();
    vec![
        name.to_owned(),
        kernel.to_owned(),
        format!("{:.1}", in_units(counts.one("first") * 1000, MILLION)),
        grouped(counts.one("calls")),
        format!("{:.0}", in_units(counts.one("init") * 1000, MILLION)),
        grouped(counts.one("exits")),
        format!("{}, {}", grouped(counts.one("ports")), grouped(counts.one("memory"))),
        kinds.join(", "),
    ]
}
