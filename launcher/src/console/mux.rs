//! The loop behind the console: one guest, a listening socket, its readers.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Listeners, RotatingLog};

/// What a new reader is shown of what was before.
const REPLAY_BYTES: usize = 64 << 10;
/// What a reader may have unread before it is cut off.
const UNREAD_BYTES: usize = 1 << 20;
/// What may wait for the guest before readers are not read any more.
const TYPED_BYTES: usize = 64 << 10;
const MAX_READERS: usize = 16;
/// How long no reader is accepted after one could not be.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the last words wait for readers once the guest is gone.
const LINGER_MS: u16 = 1000;

#[derive(Debug)]
pub(super) struct Mux {
    guest: UnixStream,
    listeners: Listeners,
    log: RotatingLog,
    readers: Vec<Reader>,
    replay: VecDeque<u8>,
    typed: VecDeque<u8>,
    /// Until when no reader is accepted, after one could not be.
    accept_after: Option<Instant>,
}

#[derive(Debug)]
struct Reader {
    stream: UnixStream,
    unread: VecDeque<u8>,
    /// It still may type; one that shut its sending side down goes on reading.
    types: bool,
}

impl Mux {
    pub(super) fn new(guest: UnixStream, listeners: Listeners, log: RotatingLog) -> io::Result<Self> {
        guest.set_nonblocking(true)?;
        listeners.replay.set_nonblocking(true)?;
        listeners.live.set_nonblocking(true)?;
        let (replay, typed) = (VecDeque::new(), VecDeque::new());
        Ok(Self { guest, listeners, log, readers: Vec::new(), replay, typed, accept_after: None })
    }

    /// Adds a reader that is shown the replay first.
    pub(super) fn add_reader(&mut self, stream: UnixStream) -> io::Result<()> {
        self.add(stream, self.replay.clone())
    }

    fn add(&mut self, stream: UnixStream, unread: VecDeque<u8>) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        self.readers.push(Reader { stream, unread, types: true });
        Ok(())
    }

    /// Runs until the guest's end closes and its last words are delivered.
    pub(super) fn run(mut self) {
        while self.turn() {}
        while self.readers.iter().any(|reader| !reader.unread.is_empty()) {
            let mut fds: Vec<_> =
                self.readers.iter().map(|r| PollFd::new(r.stream.as_fd(), PollFlags::POLLOUT)).collect();
            if !matches!(poll(&mut fds, LINGER_MS), Ok(1..)) {
                return;
            }
            self.readers.retain_mut(|reader| reader.flush() && !reader.unread.is_empty());
        }
    }

    /// One round of waiting and moving bytes; `false` when the guest's end is closed.
    fn turn(&mut self) -> bool {
        let Some(ready) = self.wait() else { return true };
        let is_open = !ready.guest || self.take_output();
        if ready.replay {
            let (accepted, shown) = (self.listeners.replay.accept(), self.replay.clone());
            self.accept(accepted.map(|(stream, _)| stream), shown);
        }
        if ready.live {
            let accepted = self.listeners.live.accept();
            self.accept(accepted.map(|(stream, _)| stream), VecDeque::new());
        }
        let mut typed = std::mem::take(&mut self.typed);
        let mut ready = ready.readers.into_iter();
        self.readers.retain_mut(|reader| {
            // Readers accepted in this round have nothing yet.
            let is_ready = ready.next().unwrap_or_default();
            reader.keeps_up()
                && (!is_ready || reader.read_into(&mut typed))
                && (reader.flush() || reader.read_last(&mut typed))
        });
        self.typed = typed;
        is_open && self.give_input()
    }

    fn wait(&mut self) -> Option<Ready> {
        let pause = self.accept_after.map(|at| at.saturating_duration_since(now())).filter(|pause| !pause.is_zero());
        if pause.is_none() {
            self.accept_after = None;
        }
        // Rounded up, so that the pause is over when the wait is.
        let timeout = pause.and_then(|pause| u16::try_from(pause.as_millis() + 1).ok());
        let may_accept = pause.is_none() && self.readers.len() < MAX_READERS;
        let out = |wanted: bool| if wanted { PollFlags::POLLOUT } else { PollFlags::empty() };
        let may_type = self.typed.len() < TYPED_BYTES;
        let input = |wanted: bool| if wanted { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut fds = vec![
            PollFd::new(self.guest.as_fd(), PollFlags::POLLIN | out(!self.typed.is_empty())),
            PollFd::new(self.listeners.replay.as_fd(), input(may_accept)),
            PollFd::new(self.listeners.live.as_fd(), input(may_accept)),
        ];
        fds.extend(self.readers.iter().map(|reader| {
            PollFd::new(reader.stream.as_fd(), input(may_type && reader.types) | out(!reader.unread.is_empty()))
        }));
        // An interrupted wait is simply repeated.
        poll(&mut fds, timeout.map_or(PollTimeout::NONE, PollTimeout::from)).ok()?;
        let readable = PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR;
        let mut happened = fds.iter().map(|fd| fd.revents().is_some_and(|events| events.intersects(readable)));
        let (guest, replay, live) = (happened.next()?, happened.next()?, happened.next()?);
        Some(Ready { guest, replay, live, readers: happened.collect() })
    }

    /// Takes a reader in; `shown` is what it sees first.
    fn accept(&mut self, accepted: io::Result<UnixStream>, shown: VecDeque<u8>) {
        match accepted {
            Ok(stream) if !protocol::socket::is_admitted(&stream) => {}
            Ok(stream) => {
                if let Err(error) = self.add(stream, shown) {
                    tracing::warn!(%error, "a console reader could not be added");
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::warn!(%error, "a console reader could not be accepted");
                // Out of descriptors, most likely: the listener stays readable, and would keep the processor busy.
                self.accept_after = Some(now() + ACCEPT_PAUSE);
            }
        }
    }

    fn take_output(&mut self) -> bool {
        let mut chunk = [0; 16 << 10];
        match self.guest.read(&mut chunk) {
            Ok(0) => return false,
            Ok(read) => self.hand_out(chunk.get(..read).unwrap_or_default()),
            Err(error) => return is_transient(&error),
        }
        true
    }

    fn hand_out(&mut self, bytes: &[u8]) {
        self.log.append(bytes);
        self.replay.extend(bytes);
        let excess = self.replay.len().saturating_sub(REPLAY_BYTES);
        self.replay.drain(..excess);
        for reader in &mut self.readers {
            reader.unread.extend(bytes);
        }
    }

    fn give_input(&mut self) -> bool {
        write_some(&mut self.guest, &mut self.typed)
    }
}

#[expect(clippy::disallowed_methods, reason = "the edge: the console's clock")]
fn now() -> Instant {
    Instant::now()
}

/// Which ends have something to be done.
struct Ready {
    guest: bool,
    replay: bool,
    live: bool,
    readers: Vec<bool>,
}

impl Reader {
    fn keeps_up(&self) -> bool {
        let keeps_up = self.unread.len() <= UNREAD_BYTES;
        if !keeps_up {
            tracing::warn!("a console reader that does not read was cut off");
        }
        keeps_up
    }

    /// Takes what was typed; `false` when the reader is gone.
    fn read_into(&mut self, typed: &mut VecDeque<u8>) -> bool {
        if !self.types {
            // Only a hang-up wakes us for one that does not type any more.
            return false;
        }
        let mut chunk = [0; 4 << 10];
        match self.stream.read(&mut chunk) {
            Ok(0) => self.types = false,
            Ok(read) => typed.extend(chunk.get(..read).unwrap_or_default()),
            Err(error) => return is_transient(&error),
        }
        true
    }

    /// Who typed and left at once has typed all the same: takes that piece by piece, and nothing is shown to it any more.
    fn read_last(&mut self, typed: &mut VecDeque<u8>) -> bool {
        self.unread.clear();
        self.read_into(typed)
    }

    fn flush(&mut self) -> bool {
        write_some(&mut self.stream, &mut self.unread)
    }
}

/// Writes what goes without waiting; `false` when the other end is gone.
fn write_some(stream: &mut UnixStream, waiting: &mut VecDeque<u8>) -> bool {
    while !waiting.is_empty() {
        match stream.write(waiting.as_slices().0) {
            Ok(written) => drop(waiting.drain(..written)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
#[path = "mux_tests.rs"]
mod tests;
