//! A mount namespace put together step by step between clone and exec.
//!
//! Steps are planned before the clone and hold their strings; carrying one out only makes system calls.
#![expect(unsafe_code, reason = "mount_setattr has no safe form")]

use std::ffi::CString;
use std::fmt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::{Gid, Uid, chdir, chown, mkdir, pivot_root, symlinkat};
use wiring::Owner;

/// One step of putting a root together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing that is mounted from now on is seen elsewhere.
    Private,
    /// A folder; one that is there is as good.
    Folder(CString),
    /// An empty file, to mount something on.
    File(CString),
    /// A symbolic link.
    Link {
        /// Path of the link.
        at: CString,
        /// What the link holds.
        to: CString,
    },
    /// A file system of its own.
    Mount {
        /// Path of the folder to mount on.
        at: CString,
        /// Type of the file system: `tmpfs`, `proc`.
        kind: CString,
        /// Flags in addition to `nosuid` and `noexec`.
        flags: MsFlags,
        /// Options of that type, separated by commas.
        options: CString,
    },
    /// A bind mount of a file or folder.
    Bind {
        /// Path on the host.
        from: CString,
        /// Path to mount on.
        at: CString,
        /// What may not be done there.
        limits: Limits,
    },
    /// Makes a mounted file system read-only.
    Close(CString),
    /// A device node, or the host's own where the kernel forbids to make one.
    Device {
        /// Path of the node.
        at: CString,
        /// Path of the host's own node.
        from: CString,
        /// Major and minor number of the device.
        number: libc::dev_t,
        /// User and group of the node.
        owner: Owner,
        /// Permission bits of the node.
        mode: Mode,
    },
    /// This folder becomes the root, and what was there before is gone.
    Enter(CString),
}

/// What may not be done in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limits {
    /// Writing, and what `nosuid` and `nodev` say; below it as well.
    ReadOnly,
    /// What `nosuid`, `nodev` and `noexec` say.
    NoPrograms,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Private => f.write_str("making mounts private"),
            Self::Folder(at) => write!(f, "making folder {}", at.to_string_lossy()),
            Self::File(at) => write!(f, "making file {}", at.to_string_lossy()),
            Self::Link { at, .. } => write!(f, "making link {}", at.to_string_lossy()),
            Self::Mount { at, kind, .. } => {
                write!(f, "mounting {} on {}", kind.to_string_lossy(), at.to_string_lossy())
            }
            Self::Bind { from, at, .. } => {
                write!(f, "mounting {} on {}", from.to_string_lossy(), at.to_string_lossy())
            }
            Self::Close(at) => write!(f, "making {} read-only", at.to_string_lossy()),
            Self::Device { at, .. } => write!(f, "making device {}", at.to_string_lossy()),
            Self::Enter(at) => write!(f, "making {} the root", at.to_string_lossy()),
        }
    }
}

impl Step {
    /// Carries it out. Makes only system calls.
    pub(super) fn carry_out(&self) -> nix::Result<()> {
        let none: Option<&std::ffi::CStr> = None;
        match self {
            Self::Private => mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none),
            Self::Folder(at) => match mkdir(at.as_c_str(), Mode::from_bits_truncate(0o755)) {
                Err(Errno::EEXIST) => Ok(()),
                made => made,
            },
            Self::File(at) => empty_file(at),
            Self::Link { at, to } => symlinkat(to.as_c_str(), nix::fcntl::AT_FDCWD, at.as_c_str()),
            Self::Mount { at, kind, flags, options } => {
                let flags = *flags | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
                mount(Some(c"tapvisor"), at.as_c_str(), Some(kind.as_c_str()), flags, Some(options.as_c_str()))
            }
            Self::Bind { from, at, limits } => {
                let flags = match limits {
                    Limits::ReadOnly => MsFlags::MS_BIND | MsFlags::MS_REC,
                    Limits::NoPrograms => MsFlags::MS_BIND,
                };
                mount(Some(from.as_c_str()), at.as_c_str(), none, flags, none)?;
                limit(at, *limits)
            }
            Self::Close(at) => {
                let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
                mount(none, at.as_c_str(), none, flags | MsFlags::MS_NOEXEC, none)
            }
            Self::Device { at, from, number, owner, mode } => {
                match mknod(at.as_c_str(), SFlag::S_IFCHR, *mode, *number) {
                    Ok(()) => chown(at.as_c_str(), Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid))),
                    Err(Errno::EPERM | Errno::EACCES) => {
                        empty_file(at)?;
                        mount(Some(from.as_c_str()), at.as_c_str(), none, MsFlags::MS_BIND, none)
                    }
                    Err(errno) => Err(errno),
                }
            }
            Self::Enter(root) => {
                chdir(root.as_c_str())?;
                // The old root is mounted over the new one, and is unmounted (pivot_root(2), NOTES).
                pivot_root(c".", c".")?;
                umount2(c".", MntFlags::MNT_DETACH)?;
                chdir(c"/")
            }
        }
    }
}

fn empty_file(at: &CString) -> nix::Result<()> {
    open(at.as_c_str(), OFlag::O_CREAT | OFlag::O_CLOEXEC, Mode::from_bits_truncate(0o644)).map(drop)
}

fn limit(at: &CString, limits: Limits) -> nix::Result<()> {
    let attributes = match limits {
        Limits::ReadOnly => libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        Limits::NoPrograms => libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC,
    };
    let wanted = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: mount_setattr reads a path that ends in zero and as many bytes at the fourth pointer as the fifth argument
    // says; both live until the call returns.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            at.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const wanted,
            size_of::<libc::mount_attr>(),
        )
    };
    match Errno::result(set) {
        Ok(_) => Ok(()),
        // Linux before 5.12 does it for one mount at a time: for the one at this place.
        Err(Errno::ENOSYS) => {
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            let more = match limits {
                Limits::ReadOnly => MsFlags::MS_RDONLY,
                Limits::NoPrograms => MsFlags::MS_NOEXEC,
            };
            let none: Option<&std::ffi::CStr> = None;
            mount(none, at.as_c_str(), none, flags | more, none)
        }
        Err(errno) => Err(errno),
    }
}
