//! A tap by ioctl: a queue of it, the size of its frames' header, what it may leave to the guest, and which queues are used.
#![expect(unsafe_code, reason = "no safe crate sets the header and the offloads of a tap")]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

mod calls {
    nix::ioctl_write_ptr!(attach, b'T', 202, libc::c_int);
    nix::ioctl_write_ptr!(set_header, b'T', 216, libc::c_int);
    nix::ioctl_write_int!(set_offload, b'T', 208);
    nix::ioctl_write_ptr!(set_queue, b'T', 217, libc::ifreq);
}

/// TUNSETIFF: a queue of the tap `name` with the header of virtio, one of several if it is `multi_queue`. The launcher is handed
/// its queues; this is for programs that are not.
///
/// # Errors
/// What the kernel answers; EINVAL for a name that is no link's.
pub fn open(name: &str, multi_queue: bool) -> std::io::Result<OwnedFd> {
    let tun = File::options().read(true).write(true).open("/dev/net/tun")?;
    let more = if multi_queue { libc::IFF_MULTI_QUEUE } else { 0 };
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | more;
    let flags = libc::c_short::try_from(flags).map_err(|_| nix::errno::Errno::EOVERFLOW)?;
    let mut request =
        libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags } };
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(nix::errno::Errno::EINVAL.into());
    }
    request.ifr_name.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from.cast_signed());
    // SAFETY: the descriptor is open, and the pointer is to an ifreq that lives through the call; its number is made of an int.
    unsafe { calls::attach(tun.as_raw_fd(), (&raw const request).cast()) }?;
    Ok(tun.into())
}

/// TUNSETVNETHDRSZ: frames begin with a header of `bytes`.
///
/// # Errors
/// What the kernel answers.
pub(crate) fn set_header(tap: impl AsFd, bytes: i32) -> nix::Result<()> {
    // SAFETY: the descriptor is open as long as `tap` is borrowed, and the pointer is to an int that lives through the call.
    unsafe { calls::set_header(tap.as_fd().as_raw_fd(), &raw const bytes) }.map(drop)
}

/// TUNSETQUEUE: has the kernel send frames to this queue, or to others only. No error where it does so already.
///
/// # Errors
/// What the kernel answers.
pub(crate) fn set_queue(tap: impl AsFd, attached: bool) -> nix::Result<()> {
    let flag = if attached { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE };
    let flags = libc::c_short::try_from(flag).map_err(|_| nix::errno::Errno::EOVERFLOW)?;
    let request =
        libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags } };
    // SAFETY: the descriptor is open as long as `tap` is borrowed, and the pointer is to an ifreq that lives through the call.
    match unsafe { calls::set_queue(tap.as_fd().as_raw_fd(), &raw const request) } {
        // It is attached, or detached, already.
        Ok(_) | Err(nix::errno::Errno::EINVAL) => Ok(()),
        Err(error) => Err(error),
    }
}

/// TUNSETOFFLOAD: the flags TUN_F_*.
///
/// # Errors
/// What the kernel answers.
pub(crate) fn set_offload(tap: impl AsFd, flags: u32) -> nix::Result<()> {
    // SAFETY: the descriptor is open as long as `tap` is borrowed, and the argument is a number.
    unsafe { calls::set_offload(tap.as_fd().as_raw_fd(), flags.into()) }.map(drop)
}
