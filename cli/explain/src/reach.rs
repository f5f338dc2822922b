//! Asking the guest's ports: one connection each, closed at once.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use terms::IfName;

use super::evidence::{From, Outcome, Probe};

/// Longest that a port may take to answer; the kernel repeats an unanswered opening after one second.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Discard (RFC 863): a host with the address accepts the datagram silently or answers that the port is closed.
const DISCARD: u16 = 9;
/// Ports that are probed at the same time.
const AT_ONCE: usize = 16;

/// A port to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) pod_interface: IfName,
    pub(super) address: IpAddr,
    pub(super) port: u16,
}

/// Sends a datagram to each address, so that the kernel resolves its neighbour.
pub(super) fn touch(addresses: &[IpAddr]) {
    for address in addresses {
        let from: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        // One that cannot be sent tells nothing that the facts do not tell.
        if let Ok(socket) = UdpSocket::bind(SocketAddr::new(from, 0)) {
            drop(socket.send_to(&[0], SocketAddr::new(*address, DISCARD)));
        }
    }
}

/// Asks every port, from the namespace of the calling thread.
pub(super) fn ask(from: From, questions: &[Question]) -> Vec<Probe> {
    let ask_one = |question: &Question| Probe {
        pod_interface: question.pod_interface.clone(),
        from,
        address: question.address,
        port: question.port,
        outcome: outcome(TcpStream::connect_timeout(&SocketAddr::new(question.address, question.port), PATIENCE)),
    };
    let mut probes = Vec::new();
    for some in questions.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            let asked: Vec<_> = some.iter().map(|question| scope.spawn(move || ask_one(question))).collect();
            probes.extend(asked.into_iter().filter_map(|thread| thread.join().ok()));
        });
    }
    probes
}

fn outcome(connected: io::Result<TcpStream>) -> Outcome {
    match connected {
        Ok(_) => Outcome::Answered,
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => Outcome::Refused,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Outcome::Silent,
            _ => Outcome::Unreachable(error.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_answers_refuses_or_cannot_be_reached() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let question = Question { pod_interface: "eth0".parse().unwrap(), address: Ipv4Addr::LOCALHOST.into(), port };
        assert_eq!(ask(From::Host, std::slice::from_ref(&question))[0].outcome, Outcome::Answered);
        drop(listener);
        assert_eq!(ask(From::Host, std::slice::from_ref(&question))[0].outcome, Outcome::Refused);
        // RFC 1122 §3.2.1.3: an address that no host may have.
        let nowhere = Question { address: Ipv4Addr::BROADCAST.into(), ..question };
        assert!(matches!(ask(From::Pod, &[nowhere])[0].outcome, Outcome::Unreachable(_)));
    }
}
