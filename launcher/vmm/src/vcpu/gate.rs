//! The gate that processors pass before each entry into the guest: open, closed, or the end.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What the processors should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Order {
    /// Run the guest.
    Run,
    /// Wait.
    Wait,
    /// End.
    End,
}

/// A signal that finds a processor just before KVM_RUN does not interrupt it: it is repeated at this interval.
const AGAIN: Duration = Duration::from_millis(2);

/// The gate of one machine.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Whether the order is [`Order::Run`], read before each entry without the lock.
    open: AtomicU8,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    order: Order,
    /// Processors that wait here or have ended.
    outside: usize,
}

impl Gate {
    /// A closed gate.
    pub(crate) fn closed() -> Self {
        Self {
            open: AtomicU8::new(0),
            state: Mutex::new(State { order: Order::Wait, outside: 0 }),
            changed: Condvar::new(),
        }
    }

    /// Whether processors may be inside.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire) == 1
    }

    /// Waits while the gate is closed. Whether the processor goes on; after the end it is counted as outside for good.
    pub(crate) fn pass(&self) -> bool {
        if self.is_open() {
            return true;
        }
        let mut state = self.lock();
        state.outside += 1;
        self.changed.notify_all();
        while state.order == Order::Wait {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.order == Order::End {
            return false;
        }
        state.outside -= 1;
        true
    }

    /// A processor ends by itself.
    pub(crate) fn leave(&self) {
        self.lock().outside += 1;
        self.changed.notify_all();
    }

    /// Lets processors in.
    pub(crate) fn open(&self) {
        self.order(Order::Run);
    }

    /// Gives an order and, unless it is to run, waits until all `count` processors are outside; `kick` takes them out of the
    /// guest and is repeated until they are.
    pub(crate) fn stop(&self, order: Order, count: usize, kick: impl Fn()) {
        self.order(order);
        let mut state = self.lock();
        while state.outside < count {
            drop(state);
            kick();
            state = self.lock();
            if state.outside < count {
                state = self.changed.wait_timeout(state, AGAIN).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    fn order(&self, order: Order) {
        self.lock().order = order;
        self.open.store(u8::from(order == Order::Run), Ordering::Release);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;

    #[test]
    fn no_processor_is_inside_once_stop_returns() {
        let (gate, inside) = (Arc::new(Gate::closed()), Arc::new(AtomicUsize::new(0)));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (gate, inside) = (Arc::clone(&gate), Arc::clone(&inside));
                thread::spawn(move || {
                    while gate.pass() {
                        inside.fetch_add(1, Ordering::SeqCst);
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        for _ in 0..100 {
            gate.open();
            thread::yield_now();
            gate.stop(Order::Wait, 4, || {});
            assert_eq!(inside.load(Ordering::SeqCst), 0);
        }
        gate.stop(Order::End, 4, || {});
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn a_processor_that_ended_by_itself_holds_nothing_up() {
        let gate = Gate::closed();
        gate.leave();
        gate.stop(Order::End, 1, || panic!("all are outside already"));
    }
}
