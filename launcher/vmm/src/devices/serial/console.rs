//! The stream behind the serial port. It never blocks: a processor that writes must not wait for who reads the console.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// What is kept for a reader that does not read; what the guest writes beyond it is lost.
const MOST_PENDING: usize = 64 << 10;

/// A stream and what it has not taken yet.
#[derive(Debug)]
pub(crate) struct Console {
    stream: File,
    pending: VecDeque<u8>,
}

impl Console {
    /// Takes over a stream and makes it non-blocking.
    ///
    /// # Errors
    /// What the kernel answers.
    pub(crate) fn new(stream: OwnedFd) -> nix::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&stream, FcntlArg::F_GETFL)?);
        fcntl(&stream, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self { stream: File::from(stream), pending: VecDeque::new() })
    }

    /// Reads what there is, at most `room` bytes; nothing at the end of the stream or while there is nothing.
    pub(crate) fn read(&mut self, room: usize) -> Vec<u8> {
        let mut bytes = vec![0; room];
        let read = self.stream.read(&mut bytes).unwrap_or(0);
        bytes.truncate(read);
        bytes
    }

    /// The descriptor, to wait for.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let room = MOST_PENDING.saturating_sub(self.pending.len());
        self.pending.extend(bytes.iter().take(room));
        self.flush()?;
        Ok(bytes.len())
    }

    /// Writes what the stream takes.
    fn flush(&mut self) -> std::io::Result<()> {
        while !self.pending.is_empty() {
            let (first, _) = self.pending.as_slices();
            match self.stream.write(first) {
                Ok(written) => drop(self.pending.drain(..written)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The far end is gone: what is written is lost, as on a cable that is unplugged.
                Err(_) => self.pending.clear(),
            }
        }
        Ok(())
    }
}
