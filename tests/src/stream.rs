//! Bulk TCP between namespaces, checked byte for byte: what finds wrong checksums and lost segments.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::Ns;

/// Port the server listens on.
const PORT: u16 = 5001;

/// Longest a stream may stall.
const STALL: Duration = Duration::from_secs(60);

/// Moves `bytes` from `client` to a server on `address` in `server`, and the same bytes back; returns the address the
/// server saw the client under.
///
/// # Panics
/// When they cannot connect, the stream stalls, or the bytes are not the same.
#[must_use]
pub fn exchange(server: &Ns<'_>, client: &Ns<'_>, address: IpAddr, bytes: usize) -> IpAddr {
    let at = SocketAddr::new(address, PORT);
    let any: SocketAddr = if address.is_ipv4() { ([0; 4], PORT).into() } else { ([0_u16; 8], PORT).into() };
    let listener = server.enter(|| TcpListener::bind(any).unwrap_or_else(|error| panic!("cannot listen: {error}")));
    let serve = move || {
        let (mut stream, peer) = listener.accept().expect("a listening socket accepts");
        stream.set_read_timeout(Some(STALL)).expect("timeout is not zero");
        receive_pattern(&mut stream, bytes);
        send_pattern(&mut stream, bytes);
        peer.ip()
    };
    let mut stream = client.enter(|| {
        TcpStream::connect_timeout(&at, Duration::from_secs(30)).unwrap_or_else(|error| panic!("no {at}: {error}"))
    });
    stream.set_read_timeout(Some(STALL)).expect("timeout is not zero");
    stream.set_write_timeout(Some(STALL)).expect("timeout is not zero");
    std::thread::scope(|scope| {
        let served = scope.spawn(serve);
        send_pattern(&mut stream, bytes);
        receive_pattern(&mut stream, bytes);
        served.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).to_canonical()
    })
}

/// A pattern whose period no segment size divides. Copied and compared by blocks: byte by byte, a build for tests takes so long
/// that the other end takes it for a stall.
fn pattern(bytes: usize) -> Vec<u8> {
    let period: Vec<u8> = (0..=250).collect();
    let mut all = period.repeat(bytes.div_ceil(period.len()));
    all.truncate(bytes);
    all
}

fn send_pattern(stream: &mut TcpStream, bytes: usize) {
    stream.write_all(&pattern(bytes)).unwrap_or_else(|error| panic!("the stream broke while sending: {error}"));
}

fn receive_pattern(stream: &mut TcpStream, bytes: usize) {
    let mut got = vec![0; bytes];
    stream.read_exact(&mut got).unwrap_or_else(|error| panic!("the stream broke while receiving: {error}"));
    let sent = pattern(bytes);
    if got != sent {
        let wrong = got.iter().zip(&sent).position(|(got, sent)| got != sent);
        panic!("byte {wrong:?} of {bytes} is the first wrong one");
    }
}
