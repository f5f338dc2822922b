//! The binding plugin on real kernels: chained after the distribution's plugins, with a namespace playing the guest.

mod bridge;
mod chain;
mod followed;
mod forged;
mod guest_limits;
mod hostile_host;
mod masquerade;
mod memory;
mod verbs;

use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    [
        bridge::trials(),
        followed::trials(),
        forged::trials(),
        masquerade::trials(),
        memory::trials(),
        guest_limits::trials(),
        hostile_host::trials(),
        verbs::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
