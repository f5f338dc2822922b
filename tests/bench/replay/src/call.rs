//! The calls of a recording, made one by one.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use nix::sys::stat::Mode;

/// The step that failed.
pub(crate) struct Failed {
    pub(crate) step: usize,
    pub(crate) what: &'static str,
    pub(crate) errno: Errno,
}

impl Failed {
    pub(crate) fn at(step: usize, what: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self { step, what, errno }
    }
}

/// Sockets and descriptors of the calls so far.
pub(crate) struct Calls {
    made: usize,
    sockets: [Option<OwnedFd>; 2],
    tun: Option<OwnedFd>,
    answer: Vec<u8>,
}

impl Calls {
    /// In a network namespace.
    pub(crate) fn enter(netns: &CStr) -> Result<Self, Failed> {
        let failed = Failed::at(0, "entering the namespace");
        let entered = open(netns, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .and_then(|netns| setns(netns, CloneFlags::CLONE_NEWNET));
        entered.map_err(failed)?;
        Ok(Self { made: 0, sockets: [None, None], tun: None, answer: vec![0; 32 * 1024] })
    }

    pub(crate) fn made(&self) -> usize {
        self.made
    }

    /// The letters are those that `recording` in the bench program writes.
    pub(crate) fn make(&mut self, kind: u8, operand: &[u8]) -> Result<(), Failed> {
        let done = match kind {
            b'r' | b'n' => self.send(kind, operand),
            b'R' | b'N' => self.receive(kind),
            b't' => open(c"/dev/net/tun", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).map(|tun| {
                self.tun = Some(tun);
            }),
            b'i' => self.ioctl(operand),
            b'f' => read(operand),
            b'w' => write(operand),
            _ => Err(Errno::EINVAL),
        };
        let what = "a call";
        done.map_err(Failed::at(self.made, what))?;
        self.made += 1;
        Ok(())
    }

    fn socket(&mut self, kind: u8) -> Result<&OwnedFd, Errno> {
        let [route, netfilter] = &mut self.sockets;
        let (slot, protocol) = match kind.to_ascii_lowercase() {
            b'r' => (route, SockProtocol::NetlinkRoute),
            _ => (netfilter, SockProtocol::NetlinkNetFilter),
        };
        match slot {
            Some(socket) => Ok(socket),
            None => {
                let opened = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
                // Without it the kernel ignores the filters of a dump and answers more than the recorded run saw.
                strict(&opened)?;
                Ok(slot.insert(opened))
            }
        }
    }

    fn send(&mut self, kind: u8, messages: &[u8]) -> Result<(), Errno> {
        send(self.socket(kind)?.as_raw_fd(), messages, MsgFlags::empty()).map(drop)
    }

    fn receive(&mut self, kind: u8) -> Result<(), Errno> {
        let socket = self.socket(kind)?.as_raw_fd();
        recv(socket, &mut self.answer, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC).map(drop)
    }

    /// The operand is the request (eight bytes), whether its argument is a pointer (one byte), and the argument.
    fn ioctl(&self, operand: &[u8]) -> Result<(), Errno> {
        let (request, rest) = operand.split_first_chunk::<8>().ok_or(Errno::EINVAL)?;
        let (pointer, argument) = rest.split_first().ok_or(Errno::EINVAL)?;
        let mut buffer = [0_u8; 64];
        buffer.get_mut(..argument.len()).ok_or(Errno::EINVAL)?.copy_from_slice(argument);
        let value = match pointer {
            0 => u64::from_le_bytes(argument.try_into().map_err(|_| Errno::EINVAL)?),
            _ => buffer.as_mut_ptr() as u64,
        };
        let request = libc::Ioctl::try_from(u64::from_le_bytes(*request)).map_err(|_| Errno::EINVAL)?;
        let tun = self.tun.as_ref().ok_or(Errno::EBADF)?.as_raw_fd();
        // SAFETY: tun ioctls take a number, or read and write at most the 40 bytes of an ifreq, which `buffer` has.
        Errno::result(unsafe { libc::ioctl(tun, request, value) }).map(drop)
    }
}

fn strict(socket: &impl AsFd) -> Result<(), Errno> {
    let on: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or(0);
    let (socket, on) = (socket.as_fd().as_raw_fd(), (&raw const on).cast());
    // SAFETY: the option is an int, which lives until the call is over.
    Errno::result(unsafe { libc::setsockopt(socket, libc::SOL_NETLINK, libc::NETLINK_GET_STRICT_CHK, on, size) })
        .map(drop)
}

fn read(path: &[u8]) -> Result<(), Errno> {
    let path = CStr::from_bytes_with_nul(path).map_err(|_| Errno::EINVAL)?;
    let mut buffer = [0; 256];
    let file = match open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) {
        // The recorded run did not find it either.
        Err(Errno::ENOENT) => return Ok(()),
        opened => opened?,
    };
    nix::unistd::read(file, &mut buffer).map(drop)
}

fn write(operand: &[u8]) -> Result<(), Errno> {
    let path = CStr::from_bytes_until_nul(operand).map_err(|_| Errno::EINVAL)?;
    let contents = operand.get(path.count_bytes() + 1..).unwrap_or_default();
    let file = open(path, OFlag::O_WRONLY | OFlag::O_TRUNC | OFlag::O_CLOEXEC, Mode::empty())?;
    nix::unistd::write(file, contents).map(drop)
}
