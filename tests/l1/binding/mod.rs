//! The binding plugin on real kernels: chained after the distribution's plugins, with a namespace playing the guest.

mod chain;
mod masquerade;

use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    masquerade::trials()
}
