//! What other threads ask of the one that serves DHCP.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, mpsc};

use dhcp::ConfigError;
use dhcp::pool::{Counters, ServerConfig};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::oneshot;

/// What the thread knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub(crate) counters: Counters,
    pub(crate) networks: Vec<Network>,
    pub(crate) lines_left_out: u64,
    pub(crate) database_failures: u64,
    pub(crate) reloads: u64,
}

/// A network and its addresses.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(crate) network: terms::Ipv4Network,
    pub(crate) addresses: u64,
    pub(crate) leased: u64,
}

/// A request and where its answer goes.
#[derive(Debug)]
pub(crate) enum Request {
    Report(oneshot::Sender<Report>),
    Reload(Box<ServerConfig>, oneshot::Sender<Result<(), ConfigError>>),
}

/// The askers' end.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    requests: mpsc::Sender<Request>,
    wake: Arc<EventFd>,
}

/// The end of the thread that answers.
#[derive(Debug)]
pub(crate) struct Inbox {
    requests: mpsc::Receiver<Request>,
    wake: Arc<EventFd>,
}

/// Both ends.
///
/// # Errors
/// When the kernel makes no more descriptors.
pub(crate) fn pair() -> std::io::Result<(Control, Inbox)> {
    let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
    let (sender, receiver) = mpsc::channel();
    Ok((Control { requests: sender, wake: Arc::clone(&wake) }, Inbox { requests: receiver, wake }))
}

impl Control {
    /// `None` when the thread has ended.
    pub(crate) async fn report(&self) -> Option<Report> {
        self.ask(Request::Report).await
    }

    /// Serves by another configuration from now on; `None` when the thread has ended.
    pub(crate) async fn reload(&self, config: ServerConfig) -> Option<Result<(), ConfigError>> {
        self.ask(|back| Request::Reload(Box::new(config), back)).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (back, answer) = oneshot::channel();
        self.requests.send(request(back)).ok()?;
        self.wake.write(1).ok()?;
        answer.await.ok()
    }
}

impl Inbox {
    /// The next request, if there is one.
    pub(crate) fn next(&self) -> Option<Request> {
        // Nothing to read is no error: it only ends a poll.
        let _ = self.wake.read();
        self.requests.try_recv().ok()
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
