//! The system calls that have no safe crate: tun ioctls and the type of a namespace.
#![expect(unsafe_code, reason = "neither nix nor libc wraps the ioctls of drivers/net/tun.c and fs/nsfs.c")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use terms::IfName;

/// NS_GET_NSTYPE of `linux/nsfs.h`: `_IO(0xb7, 0x3)`.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// A tun ioctl that takes its argument by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TunValue {
    Owner,
    Group,
    Persist,
    Offload,
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// TUNSETIFF: makes the device, or attaches the descriptor to it.
pub(crate) fn tun_set_interface(tun: BorrowedFd<'_>, name: &IfName, flags: libc::c_short) -> io::Result<()> {
    // SAFETY: `ifreq` is plain old data of the kernel; all zeroes is a valid value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // An IfName is at most 15 bytes, so the sixteenth stays the closing NUL.
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`; `request` is one, lives across the call and is not shared.
    // The borrow keeps the descriptor open.
    checked(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) }).map(drop)
}

/// One of the tun ioctls whose argument is a number, not a pointer.
pub(crate) fn tun_set_value(tun: BorrowedFd<'_>, what: TunValue, value: u32) -> io::Result<()> {
    let request = match what {
        TunValue::Owner => libc::TUNSETOWNER,
        TunValue::Group => libc::TUNSETGROUP,
        TunValue::Persist => libc::TUNSETPERSIST,
        TunValue::Offload => libc::TUNSETOFFLOAD,
    };
    // SAFETY: these requests take an unsigned long by value and touch no memory of ours. The borrow keeps the descriptor open.
    checked(unsafe { libc::ioctl(tun.as_raw_fd(), request, libc::c_ulong::from(value)) }).map(drop)
}

/// TUNSETVNETHDRSZ: bytes of virtio-net header before each frame.
pub(crate) fn tun_set_header_size(tun: BorrowedFd<'_>, bytes: libc::c_int) -> io::Result<()> {
    // SAFETY: TUNSETVNETHDRSZ reads one int; `bytes` is one and lives across the call. The borrow keeps the descriptor open.
    checked(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const bytes) }).map(drop)
}

/// TUNGETVNETHDRSZ: what the kernel has of it.
pub(crate) fn tun_header_size(tun: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TUNGETVNETHDRSZ writes one int; `bytes` is one and lives across the call. The borrow keeps the descriptor open.
    checked(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNGETVNETHDRSZ, &raw mut bytes) })?;
    Ok(bytes)
}

/// NS_GET_NSTYPE: the CLONE_NEW* flag of a namespace descriptor.
pub(crate) fn namespace_type(namespace: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    // SAFETY: NS_GET_NSTYPE takes no argument. The borrow keeps the descriptor open.
    checked(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE) })
}
