//! Direct boot of a Linux kernel: an ELF vmlinux by PVH, or a bzImage by its 32-bit entry.
//!
//! Both begin in 32-bit protected mode without paging, so one state of the processor serves both; they differ in which
//! register points at the boot information, and in that information. An ELF kernel needs no decompression in the guest.

mod bzimage;
mod initrd;
mod pvh;

use std::fs::File;
use std::io::{Read as _, Seek as _};

use linux_loader::loader::Error as LoaderError;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryError};

use crate::layout::{COMMAND_LINE, COMMAND_LINE_MAX};
use crate::memory::GuestMemory;

const ELF: [u8; 4] = *b"\x7fELF";

/// What is booted, open.
#[derive(Debug)]
pub struct Kernel {
    /// ELF vmlinux with a PVH entry, or bzImage.
    pub image: File,
    /// Initial RAM disk.
    pub initrd: Option<File>,
    /// Kernel command line.
    pub command_line: String,
}

/// Where the first processor begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Instruction pointer.
    pub(crate) rip: u64,
    /// Address of PVH's start-of-day structure, or zero.
    pub(crate) rbx: u64,
    /// Address of Linux's boot parameters, or zero.
    pub(crate) rsi: u64,
}

/// Why a kernel cannot be booted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// A file could not be read.
    #[error("the {what} cannot be read")]
    Read {
        /// Kernel or initrd.
        what: &'static str,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The kernel's image is malformed or too large.
    #[error("the kernel is no image that can be loaded: an ELF vmlinux or a bzImage is expected")]
    Load(#[source] LoaderError),
    /// An ELF kernel without the note of PVH.
    #[error("the ELF kernel has no PVH entry: it was built without CONFIG_PVH; its bzImage can be booted")]
    NoPvh,
    /// A bzImage that this loader cannot start.
    #[error("the bzImage is for boot protocol {major}.{minor}: expected at least 2.12")]
    OldProtocol {
        /// Major version.
        major: u8,
        /// Minor version.
        minor: u8,
    },
    /// The command line does not fit or holds a NUL.
    #[error("the kernel command line has {length} bytes or holds a NUL: expected at most {most}")]
    CommandLine {
        /// Its length.
        length: usize,
        /// The most that the kernel reads.
        most: usize,
    },
    /// The initrd does not fit.
    #[error("the initrd of {size} bytes does not fit below {end:#x}, above a kernel that ends at {kernel_end:#x}")]
    InitrdRoom {
        /// Its size.
        size: u64,
        /// Where memory for it ends.
        end: u64,
        /// Where it begins.
        kernel_end: u64,
    },
    /// The guest's memory refused.
    #[error("the guest's memory cannot be written")]
    Write(#[source] GuestMemoryError),
}

/// Loads all that the guest boots from.
///
/// # Errors
/// When a file is unusable or does not fit; the memory is then partly written and of no use.
pub(crate) fn load(memory: &GuestMemory, bytes: u64, kernel: &mut Kernel) -> Result<Entry, BootError> {
    let read = |source| BootError::Read { what: "kernel", source };
    let mut magic = [0; ELF.len()];
    kernel.image.rewind().map_err(read)?;
    kernel.image.read_exact(&mut magic).map_err(read)?;
    kernel.image.rewind().map_err(read)?;
    if magic == ELF { pvh::load(memory, bytes, kernel) } else { bzimage::load(memory, bytes, kernel) }
}

/// Writes the command line with its NUL. `most` is what the kernel reads of it, without NUL.
fn write_command_line(memory: &GuestMemory, line: &str, most: usize) -> Result<(), BootError> {
    let most = most.min(COMMAND_LINE_MAX - 1);
    if line.len() > most || line.contains('\0') {
        return Err(BootError::CommandLine { length: line.len(), most });
    }
    let text = [line.as_bytes(), b"\0"].concat();
    memory.write_slice(&text, GuestAddress(COMMAND_LINE)).map_err(BootError::Write)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::memory::map;

    fn kernel(image: &[u8]) -> Kernel {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(image).unwrap();
        Kernel { image: file, initrd: None, command_line: String::new() }
    }

    #[test]
    fn a_file_that_is_no_kernel_is_refused() {
        let memory = map(64 << 20, None).unwrap();
        for image in [&b""[..], b"\x7fEL", b"\x7fELF", &[0; 4096], &[0xff; 4096], b"#!/bin/sh\necho no kernel\n"] {
            let error = load(&memory, 64 << 20, &mut kernel(image)).unwrap_err();
            assert!(matches!(error, BootError::Read { .. } | BootError::Load(_)), "{error:?}");
        }
    }

    #[test]
    fn a_command_line_that_the_kernel_would_cut_is_refused() {
        let memory = map(64 << 20, None).unwrap();
        write_command_line(&memory, &"x".repeat(2047), 4096).unwrap();
        for (line, most) in [("x".repeat(2048), 4096), ("x".repeat(256), 255), ("a\0b".to_owned(), 2047)] {
            assert!(matches!(write_command_line(&memory, &line, most), Err(BootError::CommandLine { .. })));
        }
    }
}
