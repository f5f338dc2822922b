//! The socket of the guest's screen: accepts clients of VNC, who are handed to the engine.
//!
//! Guarantees: only root and the launcher's own user are let in; how many look at once is the engine's to say.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::sleep;
use std::time::Duration;

/// How long no client is accepted after one could not be.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Hands each client to `on_viewer`, until that says `false`.
///
/// # Errors
/// When there is no thread left.
pub(crate) fn serve(
    listener: UnixListener,
    mut on_viewer: impl FnMut(UnixStream) -> bool + Send + 'static,
) -> io::Result<()> {
    let accept = move || {
        loop {
            match listener.accept() {
                Ok((client, _)) if !protocol::socket::is_admitted(&client) => {}
                Ok((client, _)) => {
                    if !on_viewer(client) {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a client of the screen could not be accepted");
                    sleep(ACCEPT_PAUSE);
                }
            }
        }
    };
    crate::threads::spawn("screen", accept).map(drop)
}
