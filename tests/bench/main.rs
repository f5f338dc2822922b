//! `bench [--quick] [--into FILE] [GROUP…]`: measures what is promised about speed and size, and writes it as Markdown.
//!
//! *Flow*: each group makes a world, measures in rounds in which every variant has its turn, and gives a section of rows.
//! *Guarantees*: nothing outlives the program; nothing outside its namespaces is changed, but for FILE, of which the sections
//! of the groups that ran are replaced, those of this processor model. Timings are reported, never asserted;
//! that a variant did its work is, and instructions, which are the same on every processor: a red gate of them fails the program.

mod bridge;
mod chain;
mod dhcp;
mod machine;
mod path;
mod pods;
mod recording;
mod report;
mod rounds;
mod run;
mod services;
mod shell;
mod start;
mod tail;
mod vmm;
mod wiring;
mod workers;

use std::path::PathBuf;
use std::process::ExitCode;

use report::Section;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Extent {
    quick: bool,
}

impl Extent {
    /// `full` in a full run, a fifth of it in a quick one.
    fn of(self, full: usize) -> usize {
        if self.quick { full.div_ceil(5) } else { full }
    }
}

type Group = (&'static str, fn(Extent) -> Section);

/// In the order of the report.
const GROUPS: [Group; 12] = [
    ("start", start::measure),
    ("wiring", wiring::measure),
    ("chain", chain::measure),
    ("bridge", bridge::measure),
    ("workers", workers::measure),
    ("tail", tail::measure),
    ("services", services::measure),
    ("dhcp", dhcp::measure),
    ("path", path::measure),
    ("run", run::measure),
    ("vmm-start", vmm::measure_start),
    ("vmm-network", vmm::measure_network),
];

fn main() -> ExitCode {
    let mut extent = Extent { quick: false };
    let mut into: Option<PathBuf> = None;
    let mut chosen = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => extent.quick = true,
            "--into" => into = arguments.next().map(PathBuf::from),
            name => match GROUPS.iter().find(|(group, _)| *group == name) {
                Some(group) => chosen.push(*group),
                None => {
                    let names: Vec<_> = GROUPS.iter().map(|(name, _)| *name).collect();
                    eprintln!("bench: there is no group {name:?}, there are {}", names.join(", "));
                    return ExitCode::from(2);
                }
            },
        }
    }
    if chosen.is_empty() {
        chosen.extend(GROUPS);
    }
    let mut code = ExitCode::SUCCESS;
    for (name, measure) in chosen {
        eprintln!("bench: {name}");
        let section = measure(extent);
        for gate in section.broken() {
            eprintln!("bench: {name}: {} is {}, wanted {}", gate.what, gate.measured, gate.wanted);
            code = ExitCode::FAILURE;
        }
        let text = section.to_markdown(extent.quick);
        println!("{text}");
        if let Some(into) = &into {
            report::replace(into, name, &machine::processor(), &text);
        }
    }
    code
}
