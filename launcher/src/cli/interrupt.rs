//! Ctrl-C and SIGTERM while VMs are in this command's hands: stop them, and the second time without grace.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{SigSet, Signal};

use super::supervisor::Sender;
use crate::runner::protocol::Request;

/// Catches interrupts from its making on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupts(Arc<Mutex<State>>);

/// Under one lock: an interrupt is either passed on to a supervisor or seen by whoever adds it, never neither.
#[derive(Debug, Default)]
struct State {
    count: usize,
    senders: Vec<Sender>,
}

impl Interrupts {
    /// Begins to catch. Must come before other threads are started: they inherit what is caught.
    ///
    /// # Errors
    /// When signals cannot be caught.
    pub(crate) fn catch() -> io::Result<Self> {
        let mut caught = SigSet::empty();
        caught.add(Signal::SIGINT);
        caught.add(Signal::SIGTERM);
        caught.thread_block()?;
        let interrupts = Self::default();
        let state = Arc::clone(&interrupts.0);
        std::thread::Builder::new().name("interrupts".to_owned()).spawn(move || {
            while caught.wait().is_ok() {
                state.lock().unwrap_or_else(PoisonError::into_inner).pass_on();
            }
        })?;
        Ok(interrupts)
    }

    /// Whether there was one.
    pub(crate) fn seen(&self) -> bool {
        self.state().count > 0
    }

    /// From now on this supervisor is told too. An interrupt that came before is passed on at once.
    pub(crate) fn pass_to(&self, mut sender: Sender) {
        let mut state = self.state();
        if state.count > 0 {
            tell(&mut sender, state.count);
        }
        state.senders.push(sender);
    }

    /// From now on nobody is told: the VMs are in other hands. Returns whether that came too late, because of an
    /// interrupt that was passed on before.
    #[must_use]
    pub(crate) fn let_go(&self) -> bool {
        let mut state = self.state();
        state.senders.clear();
        state.count > 0
    }

    /// As if the user had interrupted: everything this command started is taken back.
    pub(crate) fn take_back(&self) {
        self.state().senders.iter_mut().for_each(|sender| tell(sender, 2));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn pass_on(&mut self) {
        self.count += 1;
        let count = self.count;
        self.senders.iter_mut().for_each(|sender| tell(sender, count));
    }
}

fn tell(sender: &mut Sender, count: usize) {
    let grace_seconds = (count > 1).then_some(0);
    if let Err(failure) = sender.send(Request::Stop { grace_seconds, remove: true }) {
        // A supervisor that has just ended need not be told.
        tracing::debug!("{}", failure.messages.join("; "));
    }
}
