//! What a packet and a stream between host and guest cost, and the memory of a VMM with a NIC.

use super::{Counts, MACHINES, in_units, lab, run};
use crate::Extent;
use crate::report::{Gate, Section, grouped};
use crate::rounds::turns;

const TRIPS: &str = "500";
const BYTES: u64 = 200_000_000;
const THOUSAND: u64 = 1000;
const MIB: u64 = 1 << 20;

pub(crate) fn measure(extent: Extent) -> Section {
    let mut lab = lab();
    let variants: Vec<_> =
        MACHINES.iter().flat_map(|(machine, name)| ["on", "off"].map(|vhost| (*machine, *name, vhost))).collect();
    let mut found: Vec<Vec<Counts>> = variants.iter().map(|_| Vec::new()).collect();
    let bytes = BYTES.to_string();
    for round in 0..extent.of(2) {
        for turn in turns(variants.len(), round) {
            let (machine, _, vhost) = variants[turn];
            let variables = [("VMM", machine), ("VHOST", vhost), ("TRIPS", TRIPS), ("BYTES", &bytes)];
            found[turn].push(run(&mut lab, include_str!("network.sh"), &variables));
        }
    }
    let least = |at: usize, name: &str| found[at].iter().map(|counts| counts.one(name)).min().unwrap_or(u64::MAX);
    let speed = |at: usize, name: &str| in_units(BYTES, least(at, name)) * 1000.0;
    let rows = variants.iter().enumerate().map(|(at, (_, name, vhost))| {
        vec![
            (*name).to_owned(),
            (*vhost).to_owned(),
            format!("{:.1}", in_units(least(at, "udp"), THOUSAND)),
            format!("{:.0}", speed(at, "in")),
            format!("{:.0}", speed(at, "out")),
            grouped(least(at, "rss")),
            grouped(least(at, "own")),
            grouped(least(at, "threads")),
        ]
    });
    Section {
        title: "Our machine: network and memory",
        // spec: PERF-12, PERF-14
        command: "bench-vmm",
        head: vec![
            "",
            "vhost-net",
            "UDP round trip of 64 bytes, k instructions",
            "TCP into the guest, MB per 10⁹ instructions",
            "TCP out of the guest",
            "resident beyond the guest's memory, bytes",
            "of it private (anonymous)",
            "threads",
        ],
        rows: rows.collect(),
        // Ours are the first two variants.
        gates: vec![
            Gate::at_most("UDP round trip with vhost-net", in_units(least(0, "udp"), THOUSAND), 50.0, "k"),
            Gate::at_most("UDP round trip without", in_units(least(1, "udp"), THOUSAND), 80.0, "k"),
            Gate::at_least("TCP into the guest, vhost-net", speed(0, "in"), 790.0, "MB"),
            Gate::at_least("TCP out of the guest, vhost-net", speed(0, "out"), 590.0, "MB"),
            Gate::at_most("resident beyond the guest's memory", in_units(least(0, "rss"), MIB), 6.0, "MiB").exact(),
            Gate::at_most("of it private", in_units(least(0, "own"), MIB), 1.0, "MiB").exact(),
        ],
        notes: vec![
            "As above; a guest of 1 processor and 256 MiB on a tap of the host, MTU 1500, offloads as negotiated; the other end is \
             the host. Round trips are the median of 500; streams are 200 MB in writes of 64 KiB, after a tenth of that."
                .to_owned(),
            "A guest's packet costs the guest's and the host's kernel most of it. QEMU microvm has its NIC on virtio-mmio.".to_owned(),
        ],
    }
}
