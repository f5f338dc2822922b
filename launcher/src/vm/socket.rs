//! Listening unix sockets in the VM's folder.

use std::fs;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Listens at `path`; a socket that an earlier launcher left there is replaced.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}
