//! What clients of the agent's API do with a launcher: a request on its control socket, or a stream of bytes to one of its sockets.
//!
//! Guarantees: the pod is the folder's name and no link is followed; a stream of a kind that is opened a second time ends the
//! first, whichever controller holds it.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use node_protocol::{PodUid, names};
use protocol::control::{Answer, Request};
use protocol::socket::{LIVE_CONSOLE_SOCKET, VNC_SOCKET};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::conversation;
use super::folder::Socket;

/// A kind of stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stream {
    /// The serial console, from now on.
    Console,
    /// The screen, by VNC.
    Vnc,
}

impl Stream {
    /// The kind by its name in a path.
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name {
            names::CONSOLE => Some(Self::Console),
            names::VNC => Some(Self::Vnc),
            _ => None,
        }
    }

    fn socket(self) -> &'static str {
        match self {
            Self::Console => LIVE_CONSOLE_SOCKET,
            Self::Vnc => VNC_SOCKET,
        }
    }
}

/// The launchers of the node, for actions.
#[derive(Debug)]
pub(crate) struct Launchers {
    /// kubelet's folder of pods.
    pods: PathBuf,
    /// What ends the stream that is open. A sender is dropped when the next stream takes its place.
    open: Mutex<BTreeMap<(PodUid, Stream), oneshot::Sender<()>>>,
}

impl Launchers {
    /// Those below kubelet's folder of pods.
    pub(crate) fn new(pods: PathBuf) -> Self {
        Self { pods, open: Mutex::default() }
    }

    /// Sends a launcher one request.
    ///
    /// # Errors
    /// No launcher listens, or it does not answer as it should, as a message for users.
    pub(crate) async fn ask(&self, pod: &PodUid, request: &Request) -> Result<Answer, String> {
        conversation::ask(&self.pods, pod, request).await
    }

    /// Whether a client has a stream of this kind open.
    pub(crate) fn is_open(&self, pod: &PodUid, stream: Stream) -> bool {
        self.lock().contains_key(&(pod.clone(), stream))
    }

    /// Connects to a launcher's socket.
    ///
    /// # Errors
    /// None listens there, or there is something else than a socket.
    pub(crate) async fn connect(&self, pod: &PodUid, stream: Stream) -> io::Result<UnixStream> {
        let socket = Socket::open(&self.pods, pod, stream.socket())?;
        UnixStream::connect(socket.address()).await
    }

    /// Copies bytes both ways until one side closes or another stream of this kind takes the place.
    pub(crate) async fn join(
        &self,
        pod: PodUid,
        stream: Stream,
        mut launcher: UnixStream,
        mut client: impl AsyncRead + AsyncWrite + Unpin,
    ) {
        let (displace, displaced) = oneshot::channel();
        drop(self.lock().insert((pod, stream), displace));
        tokio::select! {
            copied = copy_bidirectional(&mut launcher, &mut client) => {
                if let Err(error) = copied {
                    tracing::debug!(%error, ?stream, "a stream to a launcher broke off");
                }
            }
            // The sender is never used: it is dropped by the next stream.
            _ = displaced => tracing::debug!(?stream, "another client has taken the stream over"),
        }
        self.lock().retain(|_, displace| !displace.is_closed());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(PodUid, Stream), oneshot::Sender<()>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::super::folder::tests::kubelet;
    use super::*;

    async fn open(launchers: &Arc<Launchers>, pod: &PodUid) -> DuplexStream {
        let stream = launchers.connect(pod, Stream::Console).await.unwrap();
        let (ours, theirs) = duplex(64);
        let (launchers, pod) = (Arc::clone(launchers), pod.clone());
        tokio::spawn(async move { launchers.join(pod, Stream::Console, stream, theirs).await });
        ours
    }

    // spec: NODE-8
    #[tokio::test]
    async fn a_second_console_ends_the_first_and_goes_on() {
        let (folder, pod, volume) = kubelet();
        let listener = UnixListener::bind(volume.join("console-live.sock")).unwrap();
        let guest = std::thread::spawn(move || {
            let accepted: Vec<_> = (0..2).map(|_| listener.accept().unwrap().0).collect();
            let mut second = accepted.into_iter().nth(1).unwrap();
            let mut typed = [0; 3];
            second.read_exact(&mut typed).unwrap();
            second.write_all(b"login").unwrap();
            typed
        });
        let launchers = Arc::new(Launchers::new(folder.path().to_owned()));
        let mut first = open(&launchers, &pod).await;
        let mut second = open(&launchers, &pod).await;
        assert_eq!(first.read(&mut [0; 8]).await.unwrap(), 0, "the first console has ended");
        second.write_all(b"ls\n").await.unwrap();
        let mut answer = [0; 5];
        second.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"login");
        assert_eq!(&guest.join().unwrap(), b"ls\n");
        let other: PodUid = "00000000-1e0b-4b7c-9d1a-0c5b6a7d8e9f".parse().unwrap();
        assert_eq!(launchers.connect(&other, Stream::Console).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
