//! The sockets of DHCPv4: DHCP and ARP frames of the link, and the port.
//!
//! Clients without an address cannot be reached by a UDP socket, so frames are received and sent whole. The UDP socket only holds
//! the port: the kernel would answer unicast requests with "port unreachable", and a second server would not be noticed.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt as _;

use nix::libc;
use nix::sys::socket::{MsgFlags, bind, recv, send};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use terms::MacAddr;

use crate::interface::Interface;

const SERVER_PORT: u16 = 67;
/// Where firmware asks for its boot file again.
const BOOT_PORT: u16 = 4011;
/// Room for the requests of a flood until they are read.
const RECEIVE_BYTES: usize = 4 << 20;
/// Characters of an Ethernet address.
const MAC_TEXT: usize = 17;

/// Instructions of classic BPF (`linux/bpf_common.h`): load a half-word or a byte, load the length of the IPv4 header, load behind it,
/// compare, test bits, return.
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_HEADER_BYTES: u16 = 0xb1;
const LOAD_HALF_BEHIND: u16 = 0x48;
const IF_EQUAL: u16 = 0x15;
const IF_BITS: u16 = 0x45;
const RETURN: u16 = 0x06;

/// The sockets of DHCPv4 on one link.
#[derive(Debug)]
pub(crate) struct Packets {
    requests: Socket,
    arp: Socket,
    /// The file of the kernel that has the link's Ethernet address; `None` where /sys is not mounted.
    mac: Option<File>,
    _ports: Vec<Socket>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PacketsError {
    #[error("cannot {what}")]
    System { what: &'static str, source: std::io::Error },
    #[error("UDP port {0} of interface {1} is in use: another DHCP server runs there")]
    InUse(u16, String),
}

impl Packets {
    /// Opens both sockets. Takes CAP_NET_RAW and CAP_NET_BIND_SERVICE.
    pub(crate) fn open(interface: &Interface, is_proxy: bool) -> Result<Self, PacketsError> {
        let requests = frames(interface, libc::ETH_P_IP, Some(&requests()))?;
        // A smaller buffer than asked for serves as well.
        if let Err(error) = requests.set_recv_buffer_size(RECEIVE_BYTES) {
            tracing::debug!(%error, "receive buffer");
        }
        let ports = [SERVER_PORT].into_iter().chain(is_proxy.then_some(BOOT_PORT));
        let ports = ports.map(|port| hold_port(interface, port)).collect::<Result<_, _>>()?;
        let mac = File::open(format!("/sys/class/net/{}/address", interface.name)).ok();
        Ok(Self { requests, mac, arp: frames(interface, libc::ETH_P_ARP, None)?, _ports: ports })
    }

    /// The next DHCP request, if there is one.
    pub(crate) fn request<'a>(&self, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        receive(&self.requests, buffer)
    }

    /// The next ARP packet, if there is one.
    pub(crate) fn arp<'a>(&self, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        receive(&self.arp, buffer)
    }

    /// The link's Ethernet address now: a bridge without one of its own changes it with its ports.
    pub(crate) fn mac(&self) -> Option<MacAddr> {
        let mut text = [0; MAC_TEXT];
        self.mac.as_ref()?.read_exact_at(&mut text, 0).ok()?;
        std::str::from_utf8(&text).ok()?.parse().ok()
    }

    /// Sends a frame.
    pub(crate) fn send(&self, frame: &[u8]) -> Result<(), nix::Error> {
        send(self.requests.as_raw_fd(), frame, MsgFlags::empty()).map(drop)
    }

    /// What becomes readable with a request, and with an ARP packet.
    pub(crate) fn inputs(&self) -> [BorrowedFd<'_>; 2] {
        [self.requests.as_fd(), self.arp.as_fd()]
    }
}

/// A packet socket for the link's frames of one protocol.
fn frames(interface: &Interface, protocol: i32, filter: Option<&[SockFilter]>) -> Result<Socket, PacketsError> {
    let system = |what| move |source| PacketsError::System { what, source };
    let kind = u16::try_from(protocol).unwrap_or_default().to_be();
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(kind))));
    let socket = socket.map_err(system("open a packet socket"))?;
    filter
        .map_or(Ok(()), |filter| socket.attach_filter(filter))
        .map_err(system("attach the filter for DHCP requests"))?;
    bind(socket.as_raw_fd(), &interface.link)
        .map_err(|errno| PacketsError::System { what: "bind the packet socket", source: errno.into() })?;
    // What other links had until the socket was bound.
    let mut buffer = [0; 64];
    while receive(&socket, &mut buffer).is_some() {}
    Ok(socket)
}

fn receive<'a>(socket: &Socket, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    match recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
        Ok(length) => buffer.get(..length),
        Err(nix::Error::EAGAIN | nix::Error::EINTR) => None,
        Err(error) => {
            tracing::warn!(%error, "cannot receive");
            None
        }
    }
}

/// UDP over IPv4, not a fragment, to port 67 or 4011.
fn requests() -> [SockFilter; 10] {
    let (yes, no) = (0, 0);
    [
        SockFilter::new(LOAD_BYTE, yes, no, 23),
        SockFilter::new(IF_EQUAL, 0, 7, 17),
        SockFilter::new(LOAD_HALF, yes, no, 20),
        SockFilter::new(IF_BITS, 5, 0, 0x1fff),
        SockFilter::new(LOAD_HEADER_BYTES, yes, no, 14),
        SockFilter::new(LOAD_HALF_BEHIND, yes, no, 16),
        SockFilter::new(IF_EQUAL, 1, 0, SERVER_PORT.into()),
        SockFilter::new(IF_EQUAL, 0, 1, BOOT_PORT.into()),
        SockFilter::new(RETURN, yes, no, u32::MAX),
        SockFilter::new(RETURN, yes, no, 0),
    ]
}

fn hold_port(interface: &Interface, number: u16) -> Result<Socket, PacketsError> {
    let system = |what| move |source| PacketsError::System { what, source };
    let port = Socket::new(Domain::IPV4, Type::DGRAM, None).map_err(system("open a UDP socket"))?;
    port.bind_device(Some(interface.name.as_str().as_bytes())).map_err(system("bind to the interface"))?;
    // Nothing is ever read from it.
    port.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)]).map_err(system("attach a filter"))?;
    let address = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, number);
    port.bind(&address.into()).map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => PacketsError::InUse(number, interface.name.to_string()),
        _ => PacketsError::System { what: "bind the UDP port of DHCP", source },
    })?;
    Ok(port)
}
