//! The binding plugin on real kernels: chained after the distribution's plugins, with a namespace playing the guest.

mod bridge;
mod cable;
mod chain;
mod followed;
mod forged;
mod guest_limits;
mod hostile_host;
mod ipv6_off;
mod masquerade;
mod memory;
mod multus;
mod neighbours;
mod strays;
mod verbs;

use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    [
        bridge::trials(),
        cable::trials(),
        followed::trials(),
        forged::trials(),
        masquerade::trials(),
        memory::trials(),
        multus::trials(),
        neighbours::trials(),
        guest_limits::trials(),
        hostile_host::trials(),
        ipv6_off::trials(),
        strays::trials(),
        verbs::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
