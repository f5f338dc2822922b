//! What no safe crate offers: memory given to KVM by address, the signal that takes a processor out of the guest; and the clock.

pub(crate) mod clock;
pub(crate) mod event;
pub(crate) mod kick;
pub(crate) mod ram;
pub(crate) mod slots;
pub(crate) mod tap;
pub(crate) mod vhost;
pub(crate) mod xsave;
