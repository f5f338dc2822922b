//! What lies beyond a host's uplink: a router that announces itself, and servers that say who asked.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sendto, setsockopt, socket, sockopt,
};

use crate::{World, wait_for};

/// Name of the namespace.
const NAME: &str = "outside";

/// A router advertisement (RFC 4861 §4.2) for 2001:db8:1::/64, on-link and autonomous, valid for 2.5 hours.
/// The kernel fills in the checksum.
const ADVERTISEMENT: [u8; 48] = [
    134, 0, 0, 0, 64, 0, 0x23, 0x28, 0, 0, 0, 0, 0, 0, 0,
    0, // type, code, checksum, hop limit, flags, lifetime, timers
    3, 4, 64, 0xc0, 0, 0, 0x23, 0x28, 0, 0, 0x23, 0x28, 0, 0, 0,
    0, // prefix information: length, L and A, lifetimes
    0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // 2001:db8:1::
];

/// The network beyond the uplink.
#[derive(Debug)]
pub struct Outside;

impl Outside {
    /// A host beyond the router, reached by routing only; serves HTTP on 80 and echoes UDP on 7.
    pub const V4: &'static str = "198.51.100.7";
    /// The same over IPv6.
    pub const V6: &'static str = "2001:db8:2::7";
    /// The uplink's name in the world.
    pub const UPLINK: &'static str = "uplink0";

    pub(crate) fn of(world: &World) -> Self {
        let ns = world.ns(NAME);
        world.sh(&host_side(ns.name())).assert_ok();
        ns.sh(OUTER_SIDE).assert_ok();
        ns.enter(|| {
            serve_http(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 80));
            echo_udp(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 7));
        });
        let learned = || {
            ns.enter(advertise);
            let routes = world.run(&["ip", "-6", "route", "show", "default"]).text();
            routes.contains("proto ra").then_some(())
        };
        wait_for("the IPv6 default route of the router advertisement", Duration::from_secs(60), learned);
        world.settle();
        Self
    }

    /// Lets the outside know a way to networks behind the host, as a routed site would.
    ///
    /// # Panics
    /// When the route cannot be set.
    pub fn route_to_host(&self, world: &World, network: &str) {
        let (family, via) = if network.contains(':') { ("-6", "2001:db8:1::2") } else { ("-4", "192.0.2.2") };
        world.named(NAME).run(&["ip", family, "route", "replace", network, "via", via]).assert_ok();
    }
}

/// Without duplicate address detection: no other host is here, and a test should not wait for it.
fn host_side(peer: &str) -> String {
    format!(
        "ip link add uplink0 type veth peer name wan0 netns {peer}
        sysctl -qw net.ipv6.conf.uplink0.accept_dad=0 net.ipv6.conf.uplink0.accept_ra=1
        ip addr add 192.0.2.2/24 dev uplink0
        ip addr add 2001:db8:1::2/64 dev uplink0 nodad
        ip link set uplink0 up
        ip route add default via 192.0.2.1"
    )
}

const OUTER_SIDE: &str = "
    sysctl -qw net.ipv6.conf.wan0.accept_dad=0 net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    ip addr add 192.0.2.1/24 dev wan0
    ip addr add 2001:db8:1::1/64 dev wan0 nodad
    ip link set wan0 up
    ip addr add 198.51.100.7/32 dev lo
    ip addr add 2001:db8:2::7/128 dev lo nodad";

fn advertise() {
    let link = nix::net::if_::if_nametoindex("wan0").expect("wan0 was made");
    let everybody = SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 0, 0, link));
    let raw = socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::IcmpV6)
        .expect("root may open a raw socket");
    setsockopt(&raw, sockopt::Ipv6MulticastHops, &255).expect("hop limit can be set");
    // Before the link-local address is there nothing can be sent; the caller tries again.
    let _ = sendto(raw.as_raw_fd(), &ADVERTISEMENT, &everybody, MsgFlags::empty());
}

/// Answers every request with the address it came from. The thread ends with the test's process; the sockets keep
/// nothing alive but an empty namespace.
fn serve_http(at: SocketAddr) {
    let listener = TcpListener::bind(at).expect("port 80 is free in a new namespace");
    std::thread::spawn(move || listener.incoming().flatten().for_each(answer));
}

fn answer(mut stream: TcpStream) {
    let Ok(SocketAddr::V6(peer)) = stream.peer_addr() else { return };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
    let _ = stream.read(&mut [0; 2048]);
    let body = format!("outside sees {}\n", peer.ip().to_canonical());
    let _ = write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
}

fn echo_udp(at: SocketAddr) {
    let socket = UdpSocket::bind(at).expect("port 7 is free in a new namespace");
    std::thread::spawn(move || {
        let mut datagram = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(datagram.get(..length).unwrap_or_default(), from);
        }
    });
}
