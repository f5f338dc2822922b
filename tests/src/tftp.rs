//! A boot server for one small file under any name.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::Duration;

/// Serves a file of less than 512 bytes (RFC 1350) until it was asked for by so many names; returns them.
///
/// # Panics
/// When no request arrives for four minutes.
#[must_use]
pub fn serve_tftp(socket: &UdpSocket, content: &[u8], count: usize) -> BTreeSet<String> {
    const READ_REQUEST: [u8; 2] = [0, 1];
    socket.set_read_timeout(Some(Duration::from_secs(240))).expect("the time is not zero");
    let mut names = BTreeSet::new();
    while names.len() < count {
        let mut request = [0; 1500];
        let (length, client) = socket.recv_from(&mut request).expect("a read request");
        let Some(rest) = request[..length].strip_prefix(&READ_REQUEST) else { continue };
        let name = rest.split(|byte| *byte == 0).next().unwrap_or_default();
        names.insert(String::from_utf8_lossy(name).into_owned());
        socket.send_to(&[&[0, 3, 0, 1], content].concat(), client).expect("the client is reachable");
    }
    names
}
