//! Tap devices by descriptor: whole frames in and out, behind a virtio-net header or without one.
#![expect(unsafe_code, reason = "no safe crate attaches a descriptor to a tap")]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

nix::ioctl_write_ptr_bad!(tun_set_iff, libc::TUNSETIFF, libc::ifreq);
nix::ioctl_write_int_bad!(tun_set_offload, libc::TUNSETOFFLOAD);
nix::ioctl_write_ptr_bad!(tun_set_vnet_hdr_sz, libc::TUNSETVNETHDRSZ, libc::c_int);

/// Bytes of `struct virtio_net_hdr_v1` before each frame.
pub(crate) const HEADER_BYTES: usize = 12;

/// The largest frame a tap with segmentation offload hands over, header included.
pub(crate) const FRAME_BYTES: usize = HEADER_BYTES + 14 + 65_536;

/// One queue of a tap.
#[derive(Debug)]
pub struct Tap {
    file: File,
    header_bytes: usize,
}

impl Tap {
    /// Attaches to the tap `name` of the calling thread's network namespace, or makes it if there is none.
    ///
    /// # Panics
    /// When it exists and does not take this user or this number of queues, or cannot be made.
    #[must_use]
    pub fn attach(name: &str, multi_queue: bool) -> Self {
        let queues = if multi_queue { libc::IFF_MULTI_QUEUE } else { 0 };
        let file = attached(name, libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | queues);
        let header = libc::c_int::try_from(HEADER_BYTES).expect("12 fits");
        // SAFETY: TUNSETVNETHDRSZ reads one int, which lives on this stack frame.
        unsafe { tun_set_vnet_hdr_sz(file.as_raw_fd(), &raw const header) }.expect("the header size is known");
        let offloads = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
        // SAFETY: TUNSETOFFLOAD takes an integer and no memory.
        unsafe { tun_set_offload(file.as_raw_fd(), offloads.cast_signed()) }.expect("the offloads are known");
        Self { file, header_bytes: HEADER_BYTES }
    }

    /// The same without header and offloads: every frame is whole, its checksums are right, none is above the MTU.
    ///
    /// # Panics
    /// As [`Tap::attach`].
    #[must_use]
    pub fn attach_plain(name: &str) -> Self {
        Self { file: attached(name, libc::IFF_TAP | libc::IFF_NO_PI), header_bytes: 0 }
    }

    /// The next frame without its header, or `None` when none came within `milliseconds`.
    ///
    /// # Panics
    /// When the tap is gone.
    #[must_use]
    pub fn receive(&self, milliseconds: u16) -> Option<Vec<u8>> {
        let mut buffer = vec![0; FRAME_BYTES];
        poll(&mut [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)], PollTimeout::from(milliseconds)).ok()?;
        let length = self.read_raw(&mut buffer)?;
        Some(buffer.get(self.header_bytes..length)?.to_vec())
    }

    /// Sends a frame that needs no offload.
    ///
    /// # Panics
    /// When the tap refuses it, for instance because it is down.
    pub fn send(&self, frame: &[u8]) {
        let mut bytes = vec![0; self.header_bytes];
        bytes.extend_from_slice(frame);
        (&self.file).write_all(&bytes).unwrap_or_else(|error| panic!("the tap does not take the frame: {error}"));
    }

    /// Reads header and frame; `None` when there is none, or no tap any more.
    pub(crate) fn read_raw(&self, buffer: &mut [u8]) -> Option<usize> {
        (&self.file).read(buffer).ok()
    }

    /// Writes header and frame in one piece. A tap that is down loses it, as a cable does.
    pub(crate) fn write_raw(&self, bytes: &[u8]) {
        let _ = nix::unistd::write(&self.file, bytes);
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn attached(name: &str, flags: libc::c_int) -> File {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .expect("/dev/net/tun opens");
    let request = named_request(name, flags);
    // SAFETY: TUNSETIFF reads one ifreq, which lives on this stack frame.
    unsafe { tun_set_iff(file.as_raw_fd(), &raw const request) }
        .unwrap_or_else(|error| panic!("cannot attach to tap {name}: {error}"));
    file
}

fn named_request(name: &str, flags: libc::c_int) -> libc::ifreq {
    // SAFETY: ifreq is plain old data of integers and a byte array: all zeroes is a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    assert!(name.len() < request.ifr_name.len(), "interface name {name} is too long");
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).expect("tun flags fit 16 bits");
    request
}
