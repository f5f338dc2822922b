//! The port: vm-superio's 16550A between the guest's registers and the stream.

use std::fmt;
use std::io::Write as _;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vm_superio::serial::SerialEvents;
use vm_superio::{Serial as Port, Trigger};
use vmm_sys_util::eventfd::EventFd;

use super::Console;

/// KVM raises the interrupt when this is written.
pub(crate) struct Interrupt(pub(crate) EventFd);

impl Trigger for Interrupt {
    type E = std::io::Error;

    fn trigger(&self) -> std::io::Result<()> {
        self.0.write(1)
    }
}

/// Remembers that the guest has read all input, and wakes the event loop then.
pub(crate) struct Drained {
    pub(crate) wake: Arc<EventFd>,
    pub(crate) waiting: Arc<AtomicBool>,
}

impl SerialEvents for Drained {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}

    fn in_buffer_empty(&self) {
        // It fails only when the loop has not read the last thousand wake-ups yet.
        if self.waiting.swap(false, Ordering::Relaxed) {
            drop(self.wake.write(1));
        }
    }
}

/// A serial port.
pub(crate) struct Serial {
    pub(super) port: Port<Interrupt, Drained, Console>,
    waiting: Arc<AtomicBool>,
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serial").field("console", self.port.writer()).finish_non_exhaustive()
    }
}

impl Serial {
    /// After a reset. `wake` is written when input that had no room may be tried again.
    pub(crate) fn new(console: Console, interrupt: EventFd, wake: Arc<EventFd>) -> Self {
        let waiting = Arc::new(AtomicBool::new(false));
        let drained = Drained { wake, waiting: Arc::clone(&waiting) };
        Self { port: Port::with_events(Interrupt(interrupt), drained, console), waiting }
    }

    /// One around a port that was restored.
    pub(super) fn of(port: Port<Interrupt, Drained, Console>, waiting: Arc<AtomicBool>) -> Self {
        Self { port, waiting }
    }

    /// Reads a register.
    pub(crate) fn read(&mut self, register: u8) -> u8 {
        self.port.read(register)
    }

    /// Writes a register.
    pub(crate) fn write(&mut self, register: u8, value: u8) {
        // It fails when loopback input has no room, or the interrupt cannot be raised; a real port has no answer to that either.
        drop(self.port.write(register, value));
    }

    /// Takes input as far as there is room and output as far as the stream takes it.
    pub(crate) fn serve(&mut self) {
        drop(self.port.writer_mut().flush());
        loop {
            let room = self.port.fifo_capacity();
            if room == 0 {
                self.waiting.store(true, Ordering::Relaxed);
                return;
            }
            let bytes = self.port.writer_mut().read(room);
            if bytes.is_empty() || self.port.enqueue_raw_bytes(&bytes).is_err() {
                return;
            }
        }
    }

    /// What to wait for.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.port.writer().descriptor()
    }
}
