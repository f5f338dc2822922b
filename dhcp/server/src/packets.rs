//! The sockets of DHCPv4: frames of the link, and the port.
//!
//! Clients without an address cannot be reached by a UDP socket, so frames are received and sent whole. The UDP socket only holds
//! the port: the kernel would answer unicast requests with "port unreachable", and a second server would not be noticed.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{MsgFlags, bind, recv, send};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use crate::interface::Interface;

const SERVER_PORT: u16 = 67;
/// Room for the requests of a flood until they are read.
const RECEIVE_BYTES: usize = 4 << 20;

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
    frames: Socket,
    _port: Socket,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PacketsError {
    #[error("cannot {what}")]
    System { what: &'static str, source: std::io::Error },
    #[error("UDP port 67 of interface {0} is in use: another DHCP server runs there")]
    InUse(String),
}

impl Packets {
    /// Opens both sockets. Takes CAP_NET_RAW and CAP_NET_BIND_SERVICE.
    pub(crate) fn open(interface: &Interface) -> Result<Self, PacketsError> {
        let system = |what| move |source| PacketsError::System { what, source };
        let kind = Some(Protocol::from(i32::from(u16::to_be(0x0800))));
        let frames = Socket::new(Domain::PACKET, Type::RAW, kind).map_err(system("open a packet socket"))?;
        frames.attach_filter(&requests()).map_err(system("attach the filter for DHCP requests"))?;
        bind(frames.as_raw_fd(), &interface.link)
            .map_err(|errno| PacketsError::System { what: "bind the packet socket", source: errno.into() })?;
        // A smaller buffer than asked for serves as well.
        if let Err(error) = frames.set_recv_buffer_size(RECEIVE_BYTES) {
            tracing::debug!(%error, "receive buffer");
        }
        let packets = Self { frames, _port: hold_port(interface)? };
        // What other links had until the socket was bound.
        let mut buffer = [0; 64];
        while packets.receive(&mut buffer).is_some() {}
        Ok(packets)
    }

    /// The next frame, if there is one.
    pub(crate) fn receive<'a>(&self, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        match recv(self.frames.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => buffer.get(..length),
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => None,
            Err(error) => {
                tracing::warn!(%error, "cannot receive");
                None
            }
        }
    }

    /// Sends a frame.
    pub(crate) fn send(&self, frame: &[u8]) -> Result<(), nix::Error> {
        send(self.frames.as_raw_fd(), frame, MsgFlags::empty()).map(drop)
    }
}

impl AsFd for Packets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.frames.as_fd()
    }
}

/// UDP over IPv4, not a fragment, to port 67.
fn requests() -> [SockFilter; 9] {
    let (yes, no) = (0, 0);
    [
        SockFilter::new(LOAD_BYTE, yes, no, 23),
        SockFilter::new(IF_EQUAL, 0, 6, 17),
        SockFilter::new(LOAD_HALF, yes, no, 20),
        SockFilter::new(IF_BITS, 4, 0, 0x1fff),
        SockFilter::new(LOAD_HEADER_BYTES, yes, no, 14),
        SockFilter::new(LOAD_HALF_BEHIND, yes, no, 16),
        SockFilter::new(IF_EQUAL, 0, 1, SERVER_PORT.into()),
        SockFilter::new(RETURN, yes, no, u32::MAX),
        SockFilter::new(RETURN, yes, no, 0),
    ]
}

fn hold_port(interface: &Interface) -> Result<Socket, PacketsError> {
    let system = |what| move |source| PacketsError::System { what, source };
    let port = Socket::new(Domain::IPV4, Type::DGRAM, None).map_err(system("open a UDP socket"))?;
    port.bind_device(Some(interface.name.as_str().as_bytes())).map_err(system("bind to the interface"))?;
    // Nothing is ever read from it.
    port.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)]).map_err(system("attach a filter"))?;
    let address = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, SERVER_PORT);
    port.bind(&address.into()).map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => PacketsError::InUse(interface.name.to_string()),
        _ => PacketsError::System { what: "bind UDP port 67", source },
    })?;
    Ok(port)
}
