//! Ctrl-C and SIGTERM while VMs are in this command's hands: stop them, and the second time without grace.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::signal::{SigSet, Signal};

use super::supervisor::Sender;
use crate::runner::protocol::Request;

/// Catches interrupts from its making on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupts(Arc<State>);

#[derive(Debug, Default)]
struct State {
    count: AtomicUsize,
    senders: Mutex<Vec<Sender>>,
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
                state.pass_on();
            }
        })?;
        Ok(interrupts)
    }

    /// Whether there was one.
    pub(crate) fn seen(&self) -> bool {
        self.0.count.load(Ordering::SeqCst) > 0
    }

    /// From now on this supervisor is told too. An interrupt that came before is passed on at once.
    pub(crate) fn pass_to(&self, mut sender: Sender) {
        if self.seen() {
            tell(&mut sender, 1);
        }
        self.0.senders.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
    }

    /// From now on nobody is told: the VMs are in other hands.
    pub(crate) fn let_go(&self) {
        self.0.senders.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// As if the user had interrupted: everything this command started is taken back.
    pub(crate) fn take_back(&self) {
        let mut senders = self.0.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.iter_mut().for_each(|sender| tell(sender, 2));
    }
}

impl State {
    fn pass_on(&self) {
        let count = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.iter_mut().for_each(|sender| tell(sender, count));
    }
}

fn tell(sender: &mut Sender, count: usize) {
    let grace_seconds = (count > 1).then_some(0);
    if let Err(failure) = sender.send(Request::Stop { grace_seconds, remove: true }) {
        // A supervisor that has just ended need not be told.
        tracing::debug!("{}", failure.messages.join("; "));
    }
}
