//! The process's own terminal as one more reader: for who starts the launcher by hand.

use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// How long the last words may take to reach standard output.
const LINGER: Duration = Duration::from_secs(1);

/// Standard input and output while they are the guest's.
#[derive(Debug)]
pub(super) struct Stdio {
    _raw: Option<RawTerminal>,
    written: Receiver<()>,
}

impl Stdio {
    /// Waits a moment for the guest's last words.
    pub(super) fn finish(self) {
        // Disconnected is the good case: the writing thread is through.
        let _ = self.written.recv_timeout(LINGER);
    }
}

/// A terminal that passes every key on, until this value is dropped.
#[derive(Debug)]
pub(crate) struct RawTerminal(Termios);

impl RawTerminal {
    /// Sets the terminal on standard input.
    ///
    /// # Errors
    /// When standard input is no terminal.
    pub(crate) fn set() -> io::Result<Self> {
        let earlier = tcgetattr(io::stdin())?;
        let mut raw = earlier.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw)?;
        Ok(Self(earlier))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.0) {
            tracing::warn!(%error, "the terminal could not be put back");
        }
    }
}

/// Copies between `stream` and standard input and output, each in a thread: either may block for as long as it likes.
pub(super) fn connect(stream: UnixStream) -> io::Result<Stdio> {
    let raw = io::stdin().is_terminal().then(RawTerminal::set).transpose()?;
    let typing = stream.try_clone()?;
    let (through, written) = mpsc::channel();
    crate::threads::spawn("stdin", move || copy(io::stdin(), typing))?;
    crate::threads::spawn("stdout", move || {
        copy(stream, io::stdout());
        drop(through);
    })?;
    Ok(Stdio { _raw: raw, written })
}

fn copy(mut from: impl Read, mut to: impl Write) {
    let mut chunk = [0; 4 << 10];
    while let Ok(read @ 1..) = from.read(&mut chunk) {
        let bytes = chunk.get(..read).unwrap_or_default();
        if to.write_all(bytes).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}
