//! What changes in a network namespace, as the kernel announces it: rtnetlink's multicast groups.
//!
//! *Guarantees.* Nothing is lost in silence: where the kernel could not keep a slow listener's announcements, and where one is
//! not understood, [`Event::Missed`] comes in their place. *Assumption.* The socket belongs to the namespace of the thread that
//! opened it, and may be read from any other.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::{Socket, SocketAddr, protocols};

use super::frame::{Frame, frames};
use super::{Linux, address, link, neighbour, route};
use crate::facts::{Address, Ask, Link, Neighbour, Route};
use crate::kernel::{Kernel as _, KernelError};

/// More than the kernel puts into one announcement (NLMSG_GOODSIZE).
const BUFFER_BYTES: usize = 32 * 1024;

const GROUPS: [u32; 6] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV6_ROUTE,
];

/// A change that the kernel announces (RTNLGRP_*).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A link was made, or something about it was set.
    Link(Link),
    /// A link is gone.
    LinkGone(Link),
    /// An address was added or changed.
    Address(Address),
    /// An address is gone.
    AddressGone(Address),
    /// A route was added or changed.
    Route(Route),
    /// A route is gone.
    RouteGone(Route),
    /// A neighbour's entry was made or changed its state.
    Neighbour(Neighbour),
    /// A neighbour's entry is gone.
    NeighbourGone(Neighbour),
    /// More happened than could be told: read everything again.
    Missed,
}

/// A listener to the links, addresses, routes and neighbours of one namespace.
pub struct Events {
    socket: Socket,
    /// Reads the links again; its socket was opened in the same namespace.
    kernel: Linux<'static>,
    /// Announcements name links by index.
    links: Vec<Link>,
    buffer: Vec<u8>,
}

impl Events {
    /// Begins to listen to the namespace that the calling thread is in.
    ///
    /// # Errors
    /// When the kernel refuses the socket or the links there are.
    pub fn here() -> Result<Self, KernelError> {
        let failed = |source| KernelError::Socket { action: "listening", source };
        let mut socket = Socket::new(protocols::NETLINK_ROUTE).map_err(failed)?;
        socket.bind(&SocketAddr::new(0, 0)).map_err(failed)?;
        GROUPS.iter().try_for_each(|group| socket.add_membership(*group)).map_err(failed)?;
        // Read when listening has begun: whatever is made later is announced.
        let mut kernel = Linux::here();
        let links = links(&mut kernel)?;
        Ok(Self { socket, kernel, links, buffer: Vec::with_capacity(BUFFER_BYTES) })
    }

    /// All that was announced and not taken yet; does not wait. [`AsFd`] is for waiting.
    ///
    /// # Errors
    /// When a socket fails.
    pub fn take(&mut self) -> Result<Vec<Event>, KernelError> {
        let (mut events, mut has_missed) = (Vec::new(), false);
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, libc::MSG_DONTWAIT) {
                // Announcements that follow a gap may be about links by names that were missed.
                Ok(_) if has_missed => {}
                Ok(_) => {
                    self.understand(&mut events);
                    has_missed = events.last() == Some(&Event::Missed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => has_missed = true,
                Err(source) => return Err(KernelError::Socket { action: "announcement", source }),
            }
        }
        if has_missed {
            // What was announced since the queue was empty is older than this, or comes again to the same end.
            self.links = links(&mut self.kernel)?;
            events.retain(|event| *event != Event::Missed);
            events.push(Event::Missed);
        }
        Ok(events)
    }

    /// The announcements of one message, up to the first that is not understood.
    fn understand(&mut self, events: &mut Vec<Event>) {
        let buffer = std::mem::take(&mut self.buffer);
        for frame in frames(&buffer) {
            events.extend(self.event(&frame));
            if events.last() == Some(&Event::Missed) {
                break;
            }
        }
        self.buffer = buffer;
    }

    /// `None` for what is of no IP family, of a link that was never seen, or whose name is none.
    fn event(&mut self, frame: &Frame<'_>) -> Option<Event> {
        let (message, links) = (frame.payload, &self.links);
        match frame.kind {
            libc::RTM_NEWLINK | libc::RTM_DELLINK => {
                let (link, master) = match link::read(message, false) {
                    Ok(read) => read?,
                    Err(_) => return Some(Event::Missed),
                };
                let master = master.and_then(|index| links.iter().find(|known| known.index == index));
                let link = Link { master: master.map(|master| master.name.clone()), ..link };
                self.links.retain(|known| known.index != link.index);
                if frame.kind == libc::RTM_DELLINK {
                    return Some(Event::LinkGone(link));
                }
                self.links.push(link.clone());
                Some(Event::Link(link))
            }
            libc::RTM_NEWADDR => address::read(message, links).map(Event::Address),
            libc::RTM_DELADDR => address::read(message, links).map(Event::AddressGone),
            libc::RTM_NEWROUTE => route::read(message, links).map(Event::Route),
            libc::RTM_DELROUTE => route::read(message, links).map(Event::RouteGone),
            libc::RTM_NEWNEIGH => neighbour::read(message, links).map(Event::Neighbour),
            libc::RTM_DELNEIGH => neighbour::read(message, links).map(Event::NeighbourGone),
            _ => None,
        }
    }
}

fn links(kernel: &mut Linux) -> Result<Vec<Link>, KernelError> {
    Ok(kernel.gather(&Ask { links: true, ..Ask::default() })?.links)
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("links", &self.links.len()).finish_non_exhaustive()
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(link) => {
                let state = match (link.up, link.carrier) {
                    (true, true) => "up",
                    (true, false) => "up without carrier",
                    (false, _) => "down",
                };
                write!(f, "link {} is {state}, MTU {}", link.name, link.mtu_bytes)
            }
            Self::LinkGone(link) => write!(f, "link {} is gone", link.name),
            Self::Address(held) => write!(f, "address {} on {}", held.address, held.link),
            Self::AddressGone(held) => write!(f, "address {} on {} is gone", held.address, held.link),
            Self::Route(route) => write!(f, "{route}"),
            Self::RouteGone(route) => write!(f, "{route} is gone"),
            Self::Neighbour(other) => {
                let mac = other.mac.map(|mac| format!(" at {mac}")).unwrap_or_default();
                write!(f, "neighbour {}{mac} on {} is {:?}", other.address, other.link, other.state)
            }
            Self::NeighbourGone(other) => write!(f, "neighbour {} on {} is forgotten", other.address, other.link),
            Self::Missed => f.write_str("more happened than could be told"),
        }
    }
}
