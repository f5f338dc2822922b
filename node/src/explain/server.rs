//! The process that explains: a child for each task, a few at a time.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::stat::{Mode, umask};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use crate::files;

/// Children at a time.
const AT_ONCE: usize = 2;
/// Longest life of a child.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves the socket until SIGTERM, and removes it then.
///
/// # Errors
/// It cannot be made.
pub(crate) async fn serve(socket: &Path, namespaces: &Path) -> io::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let listener = listen(socket)?;
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let served = async {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let namespaces = namespaces.to_owned();
                    tokio::spawn(async move {
                        if let Err(problem) = explain(stream, &namespaces).await {
                            tracing::warn!(problem, "a network is not explained");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the agent's connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    };
    tokio::select! {
        () = served => {}
        _ = terminated.recv() => {}
    }
    files::remove(socket)
}

/// The socket is the agent's alone, from its first moment. One that is left of a process that was killed makes room.
fn listen(socket: &Path) -> io::Result<UnixListener> {
    files::remove(socket)?;
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(socket);
    umask(before);
    listener
}

/// The child reads its task from the connection and answers there; it gets no other descriptor.
async fn explain(stream: UnixStream, namespaces: &Path) -> Result<(), String> {
    let system = |error: io::Error| error.to_string();
    let stream = stream.into_std().map_err(system)?;
    stream.set_nonblocking(false).map_err(system)?;
    let input = OwnedFd::from(stream);
    let output = input.try_clone().map_err(system)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg("explain-one").arg("--namespaces").arg(namespaces);
    command.env_clear().stdin(Stdio::from(input)).stdout(Stdio::from(output)).kill_on_drop(true);
    let mut child = command.spawn().map_err(system)?;
    // The command holds the connection, which must end with the child.
    drop(command);
    match tokio::time::timeout(PATIENCE, child.wait()).await {
        Ok(ended) => match ended.map_err(system)? {
            status if status.success() => Ok(()),
            status => Err(format!("the child ended with {status}")),
        },
        Err(_) => Err(format!("the child did not end in {} s", PATIENCE.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    // spec: EXPL-20
    #[tokio::test]
    async fn the_socket_is_its_owners_alone_and_replaces_one_that_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("explain.sock");
        std::fs::write(&socket, "").unwrap();
        for _ in 0..2 {
            drop(listen(&socket).unwrap());
            assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
