//! Borrows the descriptor of an event, which its crate gives only as a number.
#![expect(unsafe_code, reason = "vmm-sys-util's EventFd does not implement AsFd")]

use std::os::fd::{AsRawFd as _, BorrowedFd};

use vmm_sys_util::eventfd::EventFd;

/// The descriptor, as long as the event lives.
pub(crate) fn descriptor(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the event owns the descriptor and closes it when it is dropped; the result cannot outlive the borrow of it.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}
