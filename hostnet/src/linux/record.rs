//! A decorator of kernel steps that writes them down.

use std::io;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use terms::IfName;

use super::steps::{Bus, Steps};
use crate::tap::TunCall;

/// One call as it was made, for replaying it without us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields are named for what they hold")]
pub enum Step {
    /// A buffer of netlink messages sent.
    Send {
        bus: Bus,
        /// Its bytes in hexadecimal.
        hex: String,
    },
    /// A datagram of answers received.
    Receive { bus: Bus },
    /// An unattached tun descriptor opened.
    OpenTun,
    /// An ioctl on the tun descriptor that was opened last.
    Tun(TunCall),
    /// The index of a link looked up.
    LinkIndex(IfName),
    /// A file read.
    ReadFile { path: String },
    /// A file written.
    WriteFile { path: String, contents: String },
}

/// Makes the calls and writes them down.
#[derive(Debug, Default)]
pub struct Recorder<S> {
    inner: S,
    steps: Vec<Step>,
}

impl<S: Steps> Recorder<S> {
    /// A recorder around the calls of `inner`.
    #[must_use]
    pub fn new(inner: S) -> Self {
        Self { inner, steps: Vec::new() }
    }

    /// What was done so far.
    #[must_use]
    pub fn into_steps(self) -> Vec<Step> {
        self.steps
    }
}

impl<S: Steps> Steps for Recorder<S> {
    fn send(&mut self, bus: Bus, messages: &[u8]) -> io::Result<()> {
        self.steps.push(Step::Send { bus, hex: crate::hex::hex(messages) });
        self.inner.send(bus, messages)
    }

    fn receive(&mut self, bus: Bus, buffer: &mut Vec<u8>) -> io::Result<usize> {
        self.steps.push(Step::Receive { bus });
        self.inner.receive(bus, buffer)
    }

    fn open_tun(&mut self) -> io::Result<OwnedFd> {
        self.steps.push(Step::OpenTun);
        self.inner.open_tun()
    }

    fn tun(&mut self, tun: &OwnedFd, call: &TunCall) -> io::Result<()> {
        self.steps.push(Step::Tun(call.clone()));
        self.inner.tun(tun, call)
    }

    fn link_index(&mut self, link: &IfName) -> io::Result<u32> {
        self.steps.push(Step::LinkIndex(link.clone()));
        self.inner.link_index(link)
    }

    fn read_file(&mut self, path: &str) -> io::Result<String> {
        self.steps.push(Step::ReadFile { path: path.to_owned() });
        self.inner.read_file(path)
    }

    fn write_file(&mut self, path: &str, contents: &str) -> io::Result<()> {
        self.steps.push(Step::WriteFile { path: path.to_owned(), contents: contents.to_owned() });
        self.inner.write_file(path, contents)
    }
}
