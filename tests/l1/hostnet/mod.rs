//! hostnet on the real kernel, judged by `ip`, `nft` and `sysctl`.

#[path = "../../../hostnet/tests/cases/mod.rs"]
mod cases;
mod events;
mod faults;
mod faulty;
mod links;
mod netns;
mod nft;
mod tables;

use hostnet::facts::Ask;
use hostnet::{Facts, Kernel, Linux, LinuxPair, Netns, Op};
use libtest_mimic::Trial;
use tests::{Ns, World, trial};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial("the real kernel keeps the rules that the fake one keeps", same_cases),
        // spec: L2-PLAN, L2-SHARED-1
        trial("two real namespaces keep the rules that two fake ones keep", same_pair_cases),
    ];
    trials.extend(links::trials());
    trials.extend(netns::trials());
    trials.extend(nft::trials());
    trials.extend(faults::trials());
    trials.extend(events::trials());
    trials
}

fn same_cases() {
    let world = World::bare();
    for (number, (sentence, case)) in cases::CASES.iter().chain(cases::BRIDGE_CASES).enumerate() {
        println!("{sentence}");
        let ns = world.ns(&format!("case{number}"));
        ns.enter(|| case(&mut Linux::here()));
    }
}

fn same_pair_cases() {
    let world = World::bare();
    for (number, (sentence, case)) in cases::PAIR_CASES.iter().enumerate() {
        println!("{sentence}");
        let (host, pod) = (world.ns(&format!("host{number}")), world.ns(&format!("pod{number}")));
        let pod = pod.enter(|| Netns::current().unwrap());
        host.enter(|| case(&mut LinuxPair::with_pod(pod).unwrap()));
    }
}

/// Carries out operations in a namespace; a failure comes back in words.
fn execute(ns: &Ns<'_>, ops: &[Op]) -> Result<(), String> {
    ns.enter(|| Linux::here().execute(ops).map_err(|failure| format!("{failure}: {}", failure.error)))
}

fn gather(ns: &Ns<'_>, ask: &Ask) -> Facts {
    ns.enter(|| Linux::here().gather(ask).unwrap_or_else(|error| panic!("{error}")))
}

fn name(text: &str) -> terms::IfName {
    text.parse().unwrap()
}
