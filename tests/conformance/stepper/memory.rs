//! A stopped process's memory and open files, through `/proc`.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use nix::unistd::Pid;

/// Longest buffer that is looked into.
const LONGEST: usize = 256 * 1024;

/// One stopped thread's view.
#[derive(Debug)]
pub(super) struct Memory {
    tid: Pid,
    file: File,
}

impl Memory {
    pub(super) fn of(tid: Pid) -> Option<Self> {
        let file = File::options().read(true).write(true).open(format!("/proc/{tid}/mem")).ok()?;
        Some(Self { tid, file })
    }

    /// Reads; `None` where the process has no such memory.
    pub(super) fn read(&self, address: u64, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length.min(LONGEST)];
        self.file.read_exact_at(&mut bytes, address).ok()?;
        Some(bytes)
    }

    pub(super) fn write(&self, address: u64, bytes: &[u8]) -> Option<()> {
        self.file.write_all_at(bytes, address).ok()
    }

    pub(super) fn read_u64(&self, address: u64) -> Option<u64> {
        Some(u64::from_ne_bytes(self.read(address, 8)?.try_into().ok()?))
    }

    /// A path argument, up to its closing NUL.
    pub(super) fn read_text(&self, address: u64) -> Option<String> {
        let mut bytes = vec![0; 512];
        let read = self.file.read_at(&mut bytes, address).ok()?;
        let end = bytes[..read].iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    /// What a descriptor is open on: a path, or `socket:[…]`, `pipe:[…]`.
    pub(super) fn descriptor(&self, fd: u64) -> Option<String> {
        let target = std::fs::read_link(format!("/proc/{}/fd/{}", self.tid, fd & 0xffff_ffff)).ok()?;
        Some(target.to_string_lossy().into_owned())
    }

    /// The pieces of a `struct msghdr`'s buffer: address and length (`msg_iov` is at 16, `msg_iovlen` at 24).
    pub(super) fn pieces(&self, msghdr: u64) -> Option<Vec<(u64, usize)>> {
        let (vector, count) = (self.read_u64(msghdr + 16)?, self.read_u64(msghdr + 24)?.min(1024));
        (0..count)
            .map(|index| {
                let at = vector + index * 16;
                Some((self.read_u64(at)?, usize::try_from(self.read_u64(at + 8)?).ok()?))
            })
            .collect()
    }
}
