//! The system calls that each kind of thread makes; every other fails with EPERM.
//!
//! *Guarantees.* A processor's thread, which acts on what the guest does, opens no file, makes no socket, process, thread or
//! executable memory. The event loop's thread makes threads and machines as well, for a reset makes a machine again.
//! EPERM and not the end of the process: a library's call that is not on the list must not cost a running guest.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

/// What a thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thread {
    /// Runs a processor and serves the accesses that it leaves the guest for.
    Processor,
    /// Serves queues and commands, and makes the machine again when it is reset.
    EventLoop,
}

/// Of both: events, the console, taps, the log, memory that holds no instructions, and the end of a thread.
const OF_BOTH: [libc::c_long; 24] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_epoll_ctl,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_time,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Waiting, the signal that stops processors, and what making a machine and its threads takes.
const OF_EVENT_LOOP: [libc::c_long; 19] = [
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_create1,
    libc::SYS_eventfd2,
    libc::SYS_poll,
    libc::SYS_fcntl,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_prctl,
];

/// Of an ioctl's number the byte that says whose it is.
const KIND: u64 = 0xff00;
/// `KVMIO` and `VHOST_VIRTIO`.
const KVM: u64 = 0xae00;
const VHOST: u64 = 0xaf00;
/// KVM_RUN, KVM_IRQ_LINE, KVM_SET_GSI_ROUTING, KVM_IRQFD, KVM_IOEVENTFD (linux/kvm.h).
const OF_PROCESSOR: [u64; 5] = [0xae80, 0x4008_ae61, 0x4008_ae6a, 0x4020_ae76, 0x4040_ae79];
/// TUNSETOFFLOAD, TUNSETVNETHDRSZ, TUNSETQUEUE (linux/if_tun.h), FIONBIO.
const OF_TAPS: [u64; 4] = [0x4004_54d0, 0x4004_54d8, 0x4004_54d9, 0x5421];

/// Binds this thread, and those that it makes.
///
/// # Errors
/// When the kernel has no seccomp, or refuses, as a message.
pub(crate) fn restrict(thread: Thread) -> Result<(), String> {
    filters(thread)?.iter().try_for_each(|filter| apply_filter(filter)).map_err(|error| error.to_string())
}

/// In the order in which they are put in force; the strictest counts.
fn filters(thread: Thread) -> Result<Vec<BpfProgram>, String> {
    let text = |error: BackendError| error.to_string();
    let arch = std::env::consts::ARCH.try_into().map_err(text)?;
    let program = |rules, otherwise, matched| {
        SeccompFilter::new(rules, otherwise, matched, arch).and_then(TryInto::try_into).map_err(text)
    };
    let error = |errno: i32| SeccompAction::Errno(errno.unsigned_abs());
    let allowed = program(rules(thread).map_err(text)?, error(libc::EPERM), SeccompAction::Allow)?;
    if thread == Thread::Processor {
        return Ok(vec![allowed]);
    }
    // A filter does not see what clone3 makes: the C library takes clone where there is no clone3.
    let unknown = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    Ok(vec![program(unknown, SeccompAction::Allow, error(libc::ENOSYS))?, allowed])
}

fn rules(thread: Thread) -> Result<BTreeMap<libc::c_long, Vec<SeccompRule>>, BackendError> {
    let mut rules: BTreeMap<_, _> = OF_BOTH.into_iter().map(|call| (call, Vec::new())).collect();
    let is = |argument, value, mask| {
        let how = SeccompCmpOp::MaskedEq(mask);
        SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Qword, how, value)?])
    };
    let ioctl = |number: u64| is(1, number, u64::from(u32::MAX));
    let mut ioctls = OF_TAPS.into_iter().map(ioctl).collect::<Result<Vec<_>, _>>()?;
    ioctls.push(is(1, VHOST, KIND)?);
    match thread {
        Thread::Processor => {
            ioctls.extend(OF_PROCESSOR.into_iter().map(ioctl).collect::<Result<Vec<_>, _>>()?);
        }
        Thread::EventLoop => {
            ioctls.push(is(1, KVM, KIND)?);
            rules.extend(OF_EVENT_LOOP.into_iter().map(|call| (call, Vec::new())));
            // A thread, and not a process or a namespace.
            let flag = u64::from(libc::CLONE_THREAD.unsigned_abs());
            rules.insert(libc::SYS_clone, vec![is(0, flag, flag)?]);
        }
    }
    rules.insert(libc::SYS_ioctl, ioctls);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![is(2, 0, u64::from(libc::PROT_EXEC.unsigned_abs()))?]);
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{ErrorKind, Write as _};

    use super::*;

    /// What a thread of this kind may do: open a file, make a thread, write.
    fn tried(thread: Thread) -> [Result<(), ErrorKind>; 3] {
        let (stream, _reader) = std::os::unix::net::UnixStream::pair().unwrap();
        // As the console has it: a stream of the library would make another call.
        let mut stream = File::from(std::os::fd::OwnedFd::from(stream));
        let run = move || {
            restrict(thread).unwrap();
            let open = File::open("/dev/null").map(drop);
            let spawn = std::thread::Builder::new().spawn(|| ()).map(|thread| thread.join().unwrap());
            [open, spawn, stream.write_all(b"x")].map(|result| result.map_err(|error| error.kind()))
        };
        std::thread::spawn(run).join().unwrap()
    }

    // spec: LAB-15
    #[test]
    fn threads_of_the_machine_make_their_own_calls_and_no_others() {
        let refused = Err(ErrorKind::PermissionDenied);
        assert_eq!(tried(Thread::Processor), [refused, refused, Ok(())]);
        assert_eq!(tried(Thread::EventLoop), [refused, Ok(()), Ok(())]);
    }
}
