//! Kernel steps one of which fails, for plans that a process undoes itself. What a process that is killed leaves is the
//! conformance stepper's business.

use std::io;
use std::os::fd::OwnedFd;

use hostnet::linux::{Bus, Steps};
use hostnet::tap::TunCall;
use terms::IfName;

/// What happens at the step that a [`Faulty`] breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The step is not taken and fails.
    Refuse,
    /// The step is taken, and reported as failed.
    Report,
}

/// Makes the calls and breaks one step: the `at`th send, tun ioctl or file write, counted from 0. A dump's request is a
/// send too.
#[derive(Debug)]
pub(super) struct Faulty<S> {
    inner: S,
    fault: Fault,
    at: usize,
    taken: usize,
}

impl<S> Faulty<S> {
    /// Breaks step `at` of `inner`.
    pub(super) fn new(inner: S, fault: Fault, at: usize) -> Self {
        Self { inner, fault, at, taken: 0 }
    }

    /// Whether the run came to the step that breaks.
    pub(super) fn struck(&self) -> bool {
        self.taken > self.at
    }

    fn step<T>(&mut self, act: impl FnOnce(&mut S) -> io::Result<T>) -> io::Result<T> {
        let strikes = self.taken == self.at;
        self.taken += 1;
        if strikes && self.fault == Fault::Refuse {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let outcome = act(&mut self.inner);
        if strikes { Err(io::Error::from_raw_os_error(libc::EIO)) } else { outcome }
    }
}

impl<S: Steps> Steps for Faulty<S> {
    fn send(&mut self, bus: Bus, messages: &[u8]) -> io::Result<()> {
        self.step(|inner| inner.send(bus, messages))
    }

    fn receive(&mut self, bus: Bus, buffer: &mut Vec<u8>) -> io::Result<usize> {
        self.inner.receive(bus, buffer)
    }

    fn open_tun(&mut self) -> io::Result<OwnedFd> {
        self.inner.open_tun()
    }

    fn tun(&mut self, tun: &OwnedFd, call: &TunCall) -> io::Result<()> {
        self.step(|inner| inner.tun(tun, call))
    }

    fn link_index(&mut self, link: &IfName) -> io::Result<u32> {
        self.inner.link_index(link)
    }

    fn read_file(&mut self, path: &str) -> io::Result<String> {
        self.inner.read_file(path)
    }

    fn write_file(&mut self, path: &str, contents: &str) -> io::Result<()> {
        self.step(|inner| inner.write_file(path, contents))
    }
}
