//! Every input that is kept does no harm, on the toolchain that builds for users.

use std::collections::BTreeSet;

use fuzz_targets::{TARGETS, inputs};

fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of this name");
    let kept = |folder: &str| inputs::read(&inputs::folder().join(folder).join(format!("{name}.txt"))).expect(folder);
    let corpus = kept("corpus");
    assert!(!corpus.is_empty(), "corpus/{name}.txt is empty");
    let findings = kept("findings");
    let undescribed = findings.iter().filter(|finding| finding.description.is_empty()).count();
    assert_eq!(undescribed, 0, "findings/{name}.txt: say what each finding was");
    for input in corpus.iter().chain(&findings) {
        // Said only when the test fails: a panic names the promise, this the input.
        println!("{}\n{}", input.description, inputs::line(&input.bytes));
        (target.check)(&input.bytes);
    }
    for seed in (target.seeds)() {
        (target.check)(&seed);
    }
}

macro_rules! replays {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            replay($name);
        })*

        const REPLAYED: &[&str] = &[$($name),*];
    };
}

replays! {
    // spec: FUZZ-1
    kept_calls_of_the_plugin_do_no_harm: "cni",
    // spec: FUZZ-2
    kept_wiring_requests_do_no_harm: "wiring",
    // spec: FUZZ-3
    kept_manifests_do_no_harm: "manifest",
    // spec: FUZZ-4
    kept_dhcpv4_sessions_do_no_harm: "dhcpv4",
    // spec: FUZZ-4
    kept_dhcpv6_sessions_do_no_harm: "dhcpv6",
    // spec: FUZZ-10
    kept_sessions_of_many_clients_do_no_harm: "pool",
    // spec: FUZZ-10
    kept_tftp_transfers_do_no_harm: "tftp",
    // spec: FUZZ-5
    kept_solicitations_do_no_harm: "neighbour",
    // spec: FUZZ-6
    kept_monitor_lines_do_no_harm: "monitor",
    // spec: FUZZ-8
    kept_answers_of_guest_agents_do_no_harm: "agent",
    // spec: FUZZ-7
    kept_images_do_no_harm: "image",
    // spec: FUZZ-9
    kept_accesses_to_pci_do_no_harm: "pci",
    // spec: FUZZ-9
    kept_accesses_to_ports_and_registers_do_no_harm: "mmio",
    // spec: FUZZ-9
    kept_queues_of_drivers_do_no_harm: "virtqueue",
}

#[test]
fn every_target_is_replayed_and_has_a_fuzzer() {
    let names: BTreeSet<_> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, REPLAYED.iter().copied().collect());
    let fuzzers = std::fs::read_dir(inputs::folder().join("src/bin")).expect("the fuzzers");
    let fuzzers: BTreeSet<_> = fuzzers.map(|file| file.expect("a file").file_name()).collect();
    assert_eq!(fuzzers, names.iter().map(|name| format!("{name}.rs").into()).collect());
}
