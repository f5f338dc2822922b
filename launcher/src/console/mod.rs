//! The guest's serial console: one guest, many readers, input from each of them.
//!
//! Flow: bytes of the guest go to a bounded log, into a replay of the last screenfuls, and to every reader; bytes of
//! readers go to the guest. Guarantees: a reader that is slow or blocked delays neither the guest nor other readers; memory
//! is bounded. One thread, which ends when the engine closes its end.

mod log;
mod mux;
mod stdio;

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::JoinHandle;

use protocol::socket::{CONSOLE_SOCKET, LIVE_CONSOLE_SOCKET};

pub(crate) use log::RotatingLog;
use mux::Mux;
pub(crate) use stdio::RawTerminal;

/// A console being served.
#[derive(Debug)]
pub(crate) struct Console {
    thread: JoinHandle<()>,
    stdio: Option<stdio::Stdio>,
}

/// Where readers come, and where what the guest says is kept, before anything is served there.
#[derive(Debug)]
pub(crate) struct Door {
    listeners: Listeners,
    log: RotatingLog,
}

/// The sockets of the console.
#[derive(Debug)]
pub(super) struct Listeners {
    /// Shows a new reader the last screenfuls first.
    replay: UnixListener,
    /// Shows only what the guest writes from then on, as KubeVirt's console does.
    live: UnixListener,
}

impl Listeners {
    /// Listens at `console.sock` and `console-live.sock` in a folder.
    fn open(folder: &Path) -> io::Result<Self> {
        let listen = |name| protocol::socket::listen(&folder.join(name));
        Ok(Self { replay: listen(CONSOLE_SOCKET)?, live: listen(LIVE_CONSOLE_SOCKET)? })
    }
}

impl Door {
    /// Listens at `console.sock` and `console-live.sock` in `folder`, with the log in `console.log`.
    ///
    /// # Errors
    /// When a socket or the log cannot be made.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        Ok(Self { listeners: Listeners::open(folder)?, log: RotatingLog::open(&folder.join("console.log"))? })
    }
}

impl Console {
    /// Serves the guest's end `guest` at an open door, and on standard input and output if asked for.
    ///
    /// # Errors
    /// When there is no thread or no descriptor left.
    pub(crate) fn serve(guest: UnixStream, Door { listeners, log }: Door, with_stdio: bool) -> io::Result<Self> {
        let mut mux = Mux::new(guest, listeners, log)?;
        let mut stdio = None;
        if with_stdio {
            let (ours, theirs) = UnixStream::pair()?;
            mux.add_reader(ours)?;
            stdio = Some(stdio::connect(theirs)?);
        }
        let thread = crate::threads::spawn("console", move || mux.run())?;
        Ok(Self { thread, stdio })
    }

    /// Waits until everything the guest said is with its readers.
    pub(crate) fn finish(self) {
        if self.thread.join().is_err() {
            tracing::error!("the console's thread panicked");
        }
        if let Some(stdio) = self.stdio {
            stdio.finish();
        }
    }
}
