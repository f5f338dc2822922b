//! What a tap is told by ioctl: the size of its frames' header, and what it may leave to the guest.
#![expect(unsafe_code, reason = "no safe crate sets the header and the offloads of a tap")]

use std::os::fd::{AsFd, AsRawFd as _};

mod calls {
    nix::ioctl_write_ptr!(set_header, b'T', 216, libc::c_int);
    nix::ioctl_write_int!(set_offload, b'T', 208);
}

/// TUNSETVNETHDRSZ: frames begin with a header of `bytes`.
///
/// # Errors
/// What the kernel answers.
pub(crate) fn set_header(tap: impl AsFd, bytes: i32) -> nix::Result<()> {
    // SAFETY: the descriptor is open as long as `tap` is borrowed, and the pointer is to an int that lives through the call.
    unsafe { calls::set_header(tap.as_fd().as_raw_fd(), &raw const bytes) }.map(drop)
}

/// TUNSETOFFLOAD: the flags TUN_F_*.
///
/// # Errors
/// What the kernel answers.
pub(crate) fn set_offload(tap: impl AsFd, flags: u32) -> nix::Result<()> {
    // SAFETY: the descriptor is open as long as `tap` is borrowed, and the argument is a number.
    unsafe { calls::set_offload(tap.as_fd().as_raw_fd(), flags.into()) }.map(drop)
}
