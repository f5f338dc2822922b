//! hostnet on the real kernel, judged by `ip`, `nft` and `sysctl`.

mod links;
mod nft;

use hostnet::facts::Ask;
use hostnet::{Facts, Kernel, Linux, Op};
use libtest_mimic::Trial;
use tests::{Ns, trial};

pub(crate) fn trials() -> Vec<Trial> {
    links::trials().into_iter().chain(nft::trials()).collect()
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
