//! What a path costs: an echo and streams at one end, measured from the other.
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a program that measures and tells")]

use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// Of a program that only reports.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Bytes of a datagram.
const SMALL: usize = 64;
/// Bytes of a write.
const LARGE: usize = 64 << 10;
/// Round trips before those that count.
const WARM_UP: usize = 20;
/// A datagram that was lost is an error.
const PATIENCE: Duration = Duration::from_secs(10);

/// Does what the words of the command line ask.
///
/// # Errors
/// When they ask for nothing known, or the other end does not answer.
pub fn run(words: &[&str]) -> Result<()> {
    match *words {
        ["serve", port] => serve(port.parse()?),
        ["udp", address, port, count] => udp(address, port.parse()?, count.parse()?),
        [direction @ ("in" | "out"), address, port, count] => {
            tcp(direction == "in", address, port.parse()?, count.parse()?)
        }
        _ => Err("expected serve PORT, or udp, in or out with ADDRESS PORT COUNT".into()),
    }
}

fn serve(port: u16) -> Result<()> {
    let echo = UdpSocket::bind(("0.0.0.0", port))?;
    thread::spawn(move || {
        let mut bytes = [0; SMALL];
        while let Ok((count, peer)) = echo.recv_from(&mut bytes) {
            // A peer that is gone is no fault.
            drop(echo.send_to(bytes.get(..count).unwrap_or_default(), peer));
        }
    });
    for stream in TcpListener::bind(("0.0.0.0", port))?.incoming() {
        transfer(stream?)?;
    }
    Ok(())
}

/// What a connection asks for in its first nine bytes: whether bytes go into the guest, and how many.
fn transfer(mut stream: TcpStream) -> Result<()> {
    let mut request = [0; 9];
    stream.read_exact(&mut request)?;
    let [inward, count @ ..] = request;
    let count = u64::from_be_bytes(count);
    if inward == 1 {
        receive(&mut stream, count)?;
        stream.write_all(&[1])?;
    } else {
        send(&mut stream, count)?;
    }
    Ok(())
}

fn udp(address: &str, port: u16, count: usize) -> Result<()> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.connect((address, port))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut bytes = [0; SMALL];
    let mut took = Vec::new();
    for _ in 0..WARM_UP + count {
        let begun = Instant::now();
        socket.send(&bytes)?;
        socket.recv(&mut bytes)?;
        took.push(begun.elapsed());
    }
    let mut took = took.split_off(WARM_UP);
    took.sort_unstable();
    let at = |percent: usize| took.get(took.len() * percent / 100).map_or(0, Duration::as_nanos);
    println!("{} {}", at(50), at(90));
    Ok(())
}

fn tcp(inward: bool, address: &str, port: u16, count: u64) -> Result<()> {
    let mut stream = TcpStream::connect((address, port))?;
    let mut request = vec![u8::from(inward)];
    request.extend(count.to_be_bytes());
    let begun = Instant::now();
    stream.write_all(&request)?;
    if inward {
        send(&mut stream, count)?;
        stream.read_exact(&mut [0])?;
    } else {
        receive(&mut stream, count)?;
    }
    println!("{}", begun.elapsed().as_nanos());
    Ok(())
}

fn send(stream: &mut TcpStream, count: u64) -> Result<()> {
    let bytes = vec![0x5a; LARGE];
    let mut left = count;
    while left > 0 {
        let size = left.min(LARGE as u64);
        stream.write_all(bytes.get(..usize::try_from(size)?).unwrap_or_default())?;
        left -= size;
    }
    Ok(())
}

fn receive(stream: &mut TcpStream, count: u64) -> Result<()> {
    let mut bytes = vec![0; LARGE];
    let mut left = count;
    while left > 0 {
        match stream.read(&mut bytes)? {
            0 => return Err(format!("the stream ended {left} bytes early").into()),
            read => left = left.saturating_sub(read as u64),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_carries_all_its_bytes_both_ways() {
        for inward in [0, 1] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let served =
                thread::spawn(move || transfer(listener.accept().unwrap().0).map_err(|error| error.to_string()));
            tcp(inward == 1, "127.0.0.1", port, 3 * LARGE as u64 + 1).unwrap();
            served.join().unwrap().unwrap();
        }
    }
}
