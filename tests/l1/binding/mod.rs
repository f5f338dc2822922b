//! The binding plugin on real kernels: chained after the distribution's plugins, with a namespace playing the guest.

mod bridge;
mod chain;
mod forged;
mod guest_limits;
mod masquerade;
mod verbs;

use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    [bridge::trials(), forged::trials(), masquerade::trials(), guest_limits::trials(), verbs::trials()]
        .into_iter()
        .flatten()
        .collect()
}
