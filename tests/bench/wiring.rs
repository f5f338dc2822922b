//! ADD, CHECK and DEL of the plugin, compared with the kernel's time for their calls and with a shell of `ip` and `nft`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tests::{Counts, Program, World, count, dist_file, inside, instructions};

use crate::Extent;
use crate::pods;
use crate::recording::{Part, steps};
use crate::report::{Gate, Section, grouped, milliseconds, times};
use crate::rounds::{Ratio, Runs, turns};
use crate::shell;

const VERBS: [&str; 3] = ["ADD", "CHECK", "DEL"];

/// The kernel gives taps Ethernet addresses by lot, reports some time later that no process is attached to them, and adds a multicast
/// route if they come up before that.
const SETTLE: &str = "for tap in svc-eth0 tap0 k6t-eth0; do
    [ -e /sys/class/net/$tap ] || continue
    [ $tap = k6t-eth0 ] || ip link set $tap address 02:00:00:00:00:07
    ip -6 route delete ff00::/8 dev $tap table local 2>/dev/null || true; done; sleep 2";

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Variant {
    Plugin,
    Floor,
    /// The floor without what was only read.
    Changes,
    Shell,
}

impl Variant {
    const ALL: [Self; 4] = [Self::Plugin, Self::Floor, Self::Changes, Self::Shell];

    const fn pod(self) -> &'static str {
        match self {
            Self::Plugin => "plugin",
            Self::Floor => "floor",
            Self::Changes => "changes",
            Self::Shell => "shell",
        }
    }

    const fn in_words(self) -> &'static str {
        match self {
            Self::Plugin => "tapvisor",
            Self::Floor => "floor: its kernel calls replayed",
            Self::Changes => "floor: only those that change",
            Self::Shell => "shell of `ip` and `nft`",
        }
    }
}

/// Programs of one binding.
pub(crate) struct Case {
    binding: &'static str,
    plugin: PathBuf,
    replay: PathBuf,
    /// What the plugin recorded, by verb.
    recorded: BTreeMap<&'static str, String>,
}

impl Case {
    /// Records every verb on a pod of its own.
    pub(crate) fn record(world: &World, binding: &'static str) -> Self {
        let (plugin, replay) = (dist_file("tapvisor-cni"), dist_file("replay"));
        let mut case = Self { binding, plugin, replay, recorded: BTreeMap::new() };
        pods::make(world, &["recorded"]);
        for verb in VERBS {
            let mut program = case.call(verb, "recorded");
            program.arguments = vec!["--record".to_owned(), "/run/recorded.json".to_owned()];
            inside(world, || program.run());
            let text = std::fs::read_to_string(world.path("/run/recorded.json")).expect("the plugin has recorded");
            case.recorded.insert(verb, text);
        }
        pods::remove(world, &["recorded"]);
        case
    }

    pub(crate) fn call(&self, verb: &str, pod: &str) -> Program {
        pods::call(&self.plugin, verb, pod, &pods::tapvisor(Some(self.binding)), Some(&pods::previous()))
    }

    pub(crate) fn replay(&self, verb: &str, pod: &str, part: Part) -> Program {
        let mut program = Program::new(&self.replay, &[&format!("/run/netns/{pod}")]);
        program.input = steps(&self.recorded[verb], part);
        program
    }

    /// `None` where the variant has no such verb.
    fn program(&self, variant: Variant, verb: &str) -> Option<Program> {
        let pod = variant.pod();
        let script = |script: String| shell::program(pod, script);
        let [wire, undo] = shell::scripts(self.binding);
        match (variant, verb) {
            (Variant::Plugin, _) => Some(self.call(verb, pod)),
            (Variant::Floor, _) => Some(self.replay(verb, pod, Part::All)),
            (Variant::Changes, "CHECK") | (Variant::Shell, "CHECK") => None,
            (Variant::Changes, _) => Some(self.replay(verb, pod, Part::Changes)),
            (Variant::Shell, "ADD") => Some(script(wire)),
            (Variant::Shell, _) => Some(script(undo)),
        }
    }

    /// A pod wired by replaying is what the plugin makes, to other people's eyes and to the plugin's own; so is its end.
    fn verify(&self, world: &World) {
        let seen = |part: Option<Part>| {
            pods::make(world, &["recorded"]);
            let before = world.named("recorded").snapshot();
            let run = |verb| match part {
                Some(part) => inside(world, || self.replay(verb, "recorded", part).run()),
                None => inside(world, || self.call(verb, "recorded").run()),
            };
            run("ADD");
            inside(world, || self.call("CHECK", "recorded").run());
            let pod = world.named("recorded");
            let unwired = before.changes(&pod.snapshot()).is_empty();
            assert!(!unwired, "ADD changed nothing");
            pod.sh(SETTLE).assert_ok();
            let wired = pod.snapshot();
            run("DEL");
            before.assert_same(&world.named("recorded").snapshot());
            pods::remove(world, &["recorded"]);
            wired
        };
        let original = seen(None);
        original.assert_same(&seen(Some(Part::All)));
        original.assert_same(&seen(Some(Part::Changes)));
    }

    fn measure(&self, world: &World, rounds: usize) -> BTreeMap<(Variant, &'static str), Runs> {
        let mut runs: BTreeMap<(Variant, &'static str), Runs> = BTreeMap::new();
        let names = Variant::ALL.map(Variant::pod);
        for round in 0..rounds {
            pods::make(world, &names);
            inside(world, || {
                for verb in VERBS {
                    for turn in turns(Variant::ALL.len(), round) {
                        let variant = Variant::ALL[turn];
                        if let Some(program) = self.program(variant, verb) {
                            runs.entry((variant, verb)).or_default().add(program.run().0);
                        }
                    }
                }
            });
            pods::remove(world, &names);
        }
        runs
    }

    /// Counts of each verb, and instructions of those variants that are one process.
    fn counts(&self, world: &World, variant: Variant) -> BTreeMap<&'static str, (Counts, Option<u64>)> {
        let programs = || VERBS.into_iter().filter_map(|verb| Some((verb, self.program(variant, verb)?)));
        pods::make(world, &[variant.pod()]);
        let mut counts: BTreeMap<_, _> =
            programs().map(|(verb, program)| (verb, (count(world, &program), None))).collect();
        pods::remove(world, &[variant.pod()]);
        if variant != Variant::Shell {
            pods::make(world, &[variant.pod()]);
            for (verb, program) in programs() {
                counts.entry(verb).and_modify(|both| both.1 = instructions(world, &program));
            }
            pods::remove(world, &[variant.pod()]);
        }
        counts
    }
}

pub(crate) fn measure(extent: Extent) -> Section {
    let world = World::bare();
    let (mut rows, mut gates, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    for binding in ["masquerade", "bridge"] {
        let case = Case::record(&world, binding);
        case.verify(&world);
        let runs = case.measure(&world, extent.of(60));
        eprintln!("bench: {binding}: counting");
        for variant in Variant::ALL {
            let counts = case.counts(&world, variant);
            for (verb, (counts, instructions)) in &counts {
                rows.push(row(binding, verb, variant, &runs, *counts, *instructions));
                if variant == Variant::Plugin {
                    gates.push(Gate::at_most(
                        format!("{binding} {verb}, peak RSS"),
                        mebibytes(counts.peak_rss_bytes),
                        1.5,
                        "MiB",
                    ));
                    gates.push(Gate::at_most(
                        format!("{binding} {verb}, private memory"),
                        mebibytes(counts.private_bytes),
                        0.5,
                        "MiB",
                    ));
                    let instructions = instructions.expect("callgrind counts the plugin's instructions");
                    gates.extend(instructions_gate(binding, verb, instructions));
                }
            }
        }
        gates.extend(ratios(binding, &runs));
        notes.push(format!("{binding}: n = {}.", runs[&(Variant::Plugin, "ADD")].count()));
    }
    rows.sort_by_key(|row| {
        (row[0].clone().starts_with("bridge"), VERBS.iter().position(|verb| row[0].ends_with(verb)))
    });
    notes.push("The pod is dual-stack and has a veth; a fresh namespace for every run, alike to the last index, so that the recorded \
        messages fit. Before measuring, `ip`, `nft` and `sysctl` saw no difference between a pod wired by the plugin and by either \
        floor, the plugin's CHECK was content with all, and DEL brought each back.".to_owned());
    notes.push("The shell executes `nft` once for each table, chain and rule (26 times for masquerade), and `ip` once for each link and address, as KubeVirt does by netlink.".to_owned());
    Section {
        title: "Wiring a dual-stack pod",
        // spec: PERF-2, PERF-3, PERF-4
        command: "bench-wiring",
        head: vec![
            "",
            "by",
            "wall ms: min / **median** / p99 [middle half]",
            "CPU ms",
            "to the floor",
            "processes",
            "system calls",
            "instructions in user space",
            "peak RSS, bytes",
        ],
        rows,
        gates,
        notes,
    }
}

fn row(
    binding: &str,
    verb: &'static str,
    variant: Variant,
    all: &BTreeMap<(Variant, &'static str), Runs>,
    counts: Counts,
    instructions: Option<u64>,
) -> Vec<String> {
    let (runs, floor) = (&all[&(variant, verb)], &all[&(Variant::Floor, verb)]);
    vec![
        format!("{binding} {verb}"),
        variant.in_words().to_owned(),
        milliseconds(runs.wall()),
        milliseconds(runs.cpu()),
        times(Ratio::between(runs.wall(), floor.wall())),
        counts.processes.to_string(),
        grouped(counts.system_calls),
        instructions.map_or_else(|| "–".to_owned(), grouped),
        grouped(counts.peak_rss_bytes),
    ]
}

fn mebibytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX)) / 1024.0
}

/// What the plugin executes in user space, which is the same on every processor.
fn instructions_gate(binding: &str, verb: &str, instructions: u64) -> Option<Gate> {
    let thousands = f64::from(u32::try_from(instructions / 1000).unwrap_or(u32::MAX));
    let bound = match verb {
        "ADD" => 350.0,
        "CHECK" => 400.0,
        _ => return None,
    };
    Some(Gate::at_most(format!("{binding} {verb}, instructions in user space"), thousands, bound, "thousand").exact())
}

fn ratios(binding: &str, runs: &BTreeMap<(Variant, &'static str), Runs>) -> Vec<Gate> {
    let of = |variant, verb| &runs[&(variant, verb)];
    let to = |verb, other| Ratio::between(of(Variant::Plugin, verb).wall(), of(other, verb).wall()).medians;
    let faster = 1.0 / to("ADD", Variant::Shell);
    let mut gates = vec![
        Gate::at_most(format!("{binding} ADD to the floor"), to("ADD", Variant::Floor), 1.5, "×"),
        Gate::at_most(format!("{binding} CHECK to the floor"), to("CHECK", Variant::Floor), 1.7, "×"),
        Gate::at_most(format!("{binding} DEL to the floor"), to("DEL", Variant::Floor), 1.5, "×"),
    ];
    if binding == "masquerade" {
        gates.push(Gate::at_least("masquerade ADD, faster than the shell", faster, 20.0, "×"));
    }
    gates
}
