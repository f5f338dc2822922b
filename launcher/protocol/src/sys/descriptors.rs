//! Descriptors by number: what the parent left open for us becomes owned, once, before anything else runs.
#![expect(unsafe_code, reason = "only `from_raw_fd` turns an inherited number into an owned descriptor")]

use std::collections::BTreeSet;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Numbers of the command line that are taken only once.
#[derive(Debug, Default)]
pub struct Inherited {
    taken: BTreeSet<RawFd>,
}

/// A number that is no descriptor this process may own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option}: descriptor {number} {flaw}")]
pub struct DescriptorError {
    option: &'static str,
    number: RawFd,
    flaw: &'static str,
}

impl Inherited {
    /// Takes over an inherited descriptor. Children do not inherit it unless told to.
    ///
    /// Numbers come from the command line of a process that has just been executed, so nothing in it owns them yet; the
    /// caller keeps it so by taking all of them before it opens anything.
    ///
    /// # Errors
    /// When it is standard input, output or error, not open, or named twice.
    pub fn take(&mut self, option: &'static str, number: RawFd) -> Result<OwnedFd, DescriptorError> {
        let refuse = |flaw| Err(DescriptorError { option, number, flaw });
        if number <= 2 {
            return refuse("is not one to hand down: 0 to 2 are the standard streams");
        }
        if !self.taken.insert(number) {
            return refuse("is named twice");
        }
        // SAFETY: a borrow for one fcntl, which tells by EBADF whether the number is open at all; it is not -1.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        if fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).is_err() {
            return refuse("is not open");
        }
        // SAFETY: the number is open (just asked) and has no other owner: it was inherited, see above, and `taken` hands
        // it out once.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, IntoRawFd};

    use super::*;

    #[test]
    fn a_number_is_taken_once_and_only_if_open() {
        let number = std::fs::File::open("/dev/null").unwrap().into_raw_fd();
        let mut inherited = Inherited::default();
        let owned = inherited.take("--tun-fds", number).unwrap();
        assert_eq!(owned.as_raw_fd(), number);
        let again = inherited.take("--kvm-fd", number).unwrap_err().to_string();
        assert_eq!(again, format!("--kvm-fd: descriptor {number} is named twice"));
        assert!(inherited.take("--kvm-fd", 1).unwrap_err().to_string().contains("standard streams"));
        assert!(inherited.take("--kvm-fd", 1_000_000).unwrap_err().to_string().contains("not open"));
    }
}
