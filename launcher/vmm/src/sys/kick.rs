//! The signal that takes a processor out of the guest.
#![expect(unsafe_code, reason = "a signal needs a handler, so that it interrupts and does not end the process")]

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Interrupts KVM_RUN; it means nothing else in this process.
pub(crate) const KICK: Signal = Signal::SIGUSR1;

extern "C" fn nothing(_: libc::c_int) {}

/// Makes the signal harmless: it interrupts system calls and does no more.
///
/// # Errors
/// What the kernel answers.
pub(crate) fn install() -> nix::Result<()> {
    // Without SA_RESTART: KVM_RUN must return.
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing, so it is safe at any point of any thread.
    unsafe { sigaction(KICK, &action) }.map(drop)
}
