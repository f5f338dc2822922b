//! Children that start with exactly the descriptors, namespace and rights they are to have.
//!
//! The standard library closes what is marked close-on-exec and changes neither namespace nor capabilities; the steps here
//! run in the child between fork and exec. They only make system calls: no allocation, no lock, no formatting.
#![expect(unsafe_code, reason = "pre_exec, close_range and capset have no safe form")]

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::SigSet;
use nix::unistd::{Gid, setsid};
use wiring::Owner;

/// This very program, also when its file was replaced or lies in a folder the child's user may not enter: the kernel
/// follows this link without looking at the folders above the file.
pub(crate) const THIS_PROGRAM: &str = "/proc/self/exe";

/// Lets a child go on by itself: a session of its own, no terminal, every signal heard whatever this thread blocks, and
/// only the given descriptors besides 0, 1 and 2.
pub(crate) fn detach(command: &mut Command, descriptors: Vec<OwnedFd>) {
    let prepare = move || {
        setsid()?;
        SigSet::empty().thread_set_mask()?;
        hand_over(&descriptors)?;
        Ok(())
    };
    // SAFETY: `pre_exec` demands async-signal-safety of its closure; the steps are plain system calls.
    unsafe { command.pre_exec(prepare) };
}

/// Marks every descriptor but 0, 1, 2 and the given ones close-on-exec.
pub(super) fn hand_over(descriptors: &[OwnedFd]) -> nix::Result<()> {
    // SAFETY: close_range takes three integers and, with CLOSE_RANGE_CLOEXEC, closes nothing by itself.
    let marked = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(marked)?;
    for descriptor in descriptors {
        fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    Ok(())
}

/// To a user without any capability, now and after every exec to come.
pub(super) fn drop_rights(owner: Owner, groups: &[Gid]) -> nix::Result<()> {
    const MOST_CAPABILITIES: libc::c_ulong = 64;
    for capability in 0..MOST_CAPABILITIES {
        // SAFETY: PR_CAPBSET_DROP takes one integer; an unknown capability is EINVAL.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            break;
        }
    }
    become_user(owner, groups)?;
    clear_capabilities()?;
    prctl::set_no_new_privs()
}

/// Changes the ids of this thread, which is the only one after clone3.
///
/// Not by the C library: it changes the ids of every thread of a process (nptl(7)), knows the threads that the parent had at
/// the clone, and waits forever for one of them that was just being made.
fn become_user(owner: Owner, groups: &[Gid]) -> nix::Result<()> {
    // SAFETY: setgroups reads as many group ids, 32 bits each as `Gid` is, as the first argument says.
    Errno::result(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    // SAFETY: setresgid takes three integers.
    Errno::result(unsafe { libc::syscall(libc::SYS_setresgid, owner.gid, owner.gid, owner.gid) })?;
    // Leaving uid 0 with all three ids empties the permitted, effective and ambient sets; the inheritable one stays.
    // SAFETY: setresuid takes three integers.
    Errno::result(unsafe { libc::syscall(libc::SYS_setresuid, owner.uid, owner.uid, owner.uid) })?;
    Ok(())
}

fn clear_capabilities() -> nix::Result<()> {
    // struct __user_cap_header_struct and two struct __user_cap_data_struct of linux/capability.h, version 3.
    const VERSION_3: u32 = 0x2008_0522;
    let header: [u32; 2] = [VERSION_3, 0];
    let data = [0_u32; 6];
    // SAFETY: capset reads 8 bytes at the first pointer and, for version 3, 24 bytes at the second; both arrays are
    // that long and live until the call returns.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd as _;
    use std::process::Stdio;

    use nix::sys::signal::Signal;

    use super::*;

    #[test]
    fn a_detached_child_has_the_given_descriptors_and_no_others() {
        let (kept, lost) = (File::open("/dev/null").unwrap(), File::open("/dev/null").unwrap());
        let lost_elsewhere = nix::unistd::dup(&lost).unwrap();
        fcntl(&lost_elsewhere, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let number = kept.as_raw_fd().to_string();
        let mut command = Command::new("ls");
        command.arg("/proc/self/fd").stdin(Stdio::null());
        detach(&mut command, vec![kept.into()]);
        let listing = String::from_utf8(command.output().unwrap().stdout).unwrap();
        // The last one is ls' own view of the folder.
        let seen: Vec<_> = listing.split_whitespace().collect();
        assert!(seen.contains(&number.as_str()), "{seen:?}");
        assert!(!seen.contains(&lost_elsewhere.as_raw_fd().to_string().as_str()), "{seen:?}");
        assert_eq!(seen.len(), 5, "{seen:?}");
    }
    // spec: RUN-3
    #[test]
    fn a_detached_child_hears_the_signals_that_its_parent_waits_for_itself() {
        let blocked = std::thread::spawn(|| {
            let waited_for: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
            waited_for.thread_block().unwrap();
            let mut command = Command::new("grep");
            command.args(["SigBlk", "/proc/self/status"]).stdin(Stdio::null());
            detach(&mut command, Vec::new());
            String::from_utf8(command.output().unwrap().stdout).unwrap()
        });
        assert_eq!(blocked.join().unwrap(), "SigBlk:\t0000000000000000\n");
    }
}
