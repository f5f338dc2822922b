//! Kernel steps: the single calls that read or change the kernel, behind a seam for recorders and faults.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use netlink_sys::{Socket, protocols};
use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};
use terms::IfName;

use crate::tap::{self, TunCall};

/// The netlink family of a socket (NETLINK_ROUTE, NETLINK_NETFILTER).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Bus {
    /// Links, addresses, routes, neighbours.
    Route,
    /// nft and connection tracking.
    Netfilter,
}

/// The calls that [`super::Linux`] is made of. A *step* is one `send`, `tun` or `write_file`: the kernel has changed once.
pub trait Steps: std::fmt::Debug {
    /// Sends one buffer of netlink messages; the kernel has acted when this returns.
    ///
    /// # Errors
    /// The socket's.
    fn send(&mut self, bus: Bus, messages: &[u8]) -> io::Result<()>;

    /// Receives one datagram of answers into `buffer`, as much as fits its capacity, and returns the datagram's length.
    ///
    /// # Errors
    /// The socket's; `WouldBlock` when there is none.
    fn receive(&mut self, bus: Bus, buffer: &mut Vec<u8>) -> io::Result<usize>;

    /// Opens an unattached tun descriptor.
    ///
    /// # Errors
    /// The device node's.
    fn open_tun(&mut self) -> io::Result<OwnedFd>;

    /// Performs one ioctl on a tun descriptor.
    ///
    /// # Errors
    /// The kernel's.
    fn tun(&mut self, tun: &OwnedFd, call: &TunCall) -> io::Result<()>;

    /// The index of a link.
    ///
    /// # Errors
    /// ENODEV when it is not there.
    fn link_index(&mut self, link: &IfName) -> io::Result<u32>;

    /// Reads a whole file of /proc.
    ///
    /// # Errors
    /// The file system's.
    fn read_file(&mut self, path: &str) -> io::Result<String>;

    /// Writes a file of /proc with one call.
    ///
    /// # Errors
    /// The file system's.
    fn write_file(&mut self, path: &str, contents: &str) -> io::Result<()>;
}

impl<S: Steps + ?Sized> Steps for &mut S {
    fn send(&mut self, bus: Bus, messages: &[u8]) -> io::Result<()> {
        (**self).send(bus, messages)
    }

    fn receive(&mut self, bus: Bus, buffer: &mut Vec<u8>) -> io::Result<usize> {
        (**self).receive(bus, buffer)
    }

    fn open_tun(&mut self) -> io::Result<OwnedFd> {
        (**self).open_tun()
    }

    fn tun(&mut self, tun: &OwnedFd, call: &TunCall) -> io::Result<()> {
        (**self).tun(tun, call)
    }

    fn link_index(&mut self, link: &IfName) -> io::Result<u32> {
        (**self).link_index(link)
    }

    fn read_file(&mut self, path: &str) -> io::Result<String> {
        (**self).read_file(path)
    }

    fn write_file(&mut self, path: &str, contents: &str) -> io::Result<()> {
        (**self).write_file(path, contents)
    }
}

/// More than any setting of the network has.
const FILE_BYTES: usize = 4096;

/// The real calls, on the namespace that the thread was in when the first of each kind was made.
#[derive(Debug, Default)]
pub struct Real {
    route: Option<Socket>,
    netfilter: Option<Socket>,
}

impl Real {
    fn socket(&mut self, bus: Bus) -> io::Result<&Socket> {
        let (slot, protocol) = match bus {
            Bus::Route => (&mut self.route, protocols::NETLINK_ROUTE),
            Bus::Netfilter => (&mut self.netfilter, protocols::NETLINK_NETFILTER),
        };
        match slot {
            Some(socket) => Ok(socket),
            None => Ok(slot.insert(open(protocol)?)),
        }
    }
}

fn open(protocol: isize) -> io::Result<Socket> {
    let socket = Socket::new(protocol)?;
    // Kernels before 4.12 and 4.20 know neither; they lack words in errors and checks of ours, nothing else.
    let _ = socket.set_ext_ack(true);
    let _ = socket.set_netlink_get_strict_chk(true);
    socket.set_cap_ack(true)?;
    Ok(socket)
}

impl Steps for Real {
    fn send(&mut self, bus: Bus, messages: &[u8]) -> io::Result<()> {
        let socket = self.socket(bus)?;
        match socket.send(messages, 0) {
            // A transaction of thousands of rules; only who may raise the limit has such.
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                setsockopt(socket, sockopt::SndBufForce, &messages.len().saturating_mul(2))?;
                socket.send(messages, 0)
            }
            sent => sent,
        }
        .map(drop)
    }

    fn receive(&mut self, bus: Bus, buffer: &mut Vec<u8>) -> io::Result<usize> {
        buffer.clear();
        // The kernel answers while it handles the request, so there is nothing to wait for.
        self.socket(bus)?.recv(buffer, libc::MSG_DONTWAIT | libc::MSG_TRUNC)
    }

    fn open_tun(&mut self) -> io::Result<OwnedFd> {
        tap::open_node().map(OwnedFd::from)
    }

    fn tun(&mut self, tun: &OwnedFd, call: &TunCall) -> io::Result<()> {
        call.perform(tun.as_fd())
    }

    fn link_index(&mut self, link: &IfName) -> io::Result<u32> {
        nix::net::if_::if_nametoindex(link.as_str()).map_err(io::Error::from)
    }

    fn read_file(&mut self, path: &str) -> io::Result<String> {
        // What is in /proc has no size to ask for first.
        let mut text = String::with_capacity(FILE_BYTES);
        fs::File::open(path)?.take(FILE_BYTES as u64).read_to_string(&mut text)?;
        Ok(text)
    }

    fn write_file(&mut self, path: &str, contents: &str) -> io::Result<()> {
        fs::write(path, contents)
    }
}
