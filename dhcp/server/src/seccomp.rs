//! The system calls that the server makes once it serves; every other fails with EPERM.
//!
//! *Guarantees.* No process, no program, no namespace, no executable memory, no socket but those of UDP over IPv4, which TFTP takes for
//! each transfer. A list of what is allowed: what a later kernel adds is refused. EPERM and not the end of the process, for a
//! library's call that is not on the list must not cost the clients their server.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

/// System calls that are allowed with any arguments.
const ALLOWED: [libc::c_long; 67] = [
    // Files below the folders that Landlock leaves, and the lease database.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    libc::SYS_fcntl,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_getcwd,
    // Sockets that are open.
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    // Waiting.
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_restart_syscall,
    // Threads and memory.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_membarrier,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrandom,
    // Signals.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    // See `REFUSED_AS_UNKNOWN`.
    libc::SYS_clone3,
];

/// And the older ones that the C library still makes on this architecture.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: [libc::c_long; 8] = [
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_rename,
    libc::SYS_readlink,
    libc::SYS_poll,
    libc::SYS_epoll_wait,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: [libc::c_long; 0] = [];

/// The C library tries it for threads, and takes `clone` when the kernel says that it has no such call: a filter does not see
/// its arguments, so it would let processes and namespaces be made.
const REFUSED_AS_UNKNOWN: libc::c_long = libc::SYS_clone3;

/// The bits of a socket's type that are no flags.
const TYPE_BITS: u64 = 0xf;

/// Binds this thread, and all threads that it makes from now on.
///
/// # Errors
/// When the kernel does not have seccomp's filters, or refuses, as a message.
pub(crate) fn restrict() -> Result<(), String> {
    filters()?.iter().try_for_each(|filter| apply_filter(filter)).map_err(|error| error.to_string())
}

/// In the order in which they are put in force. The kernel obeys the strictest, so the first refuses what the second allows.
fn filters() -> Result<[BpfProgram; 2], String> {
    let text = |error: BackendError| error.to_string();
    let arch = std::env::consts::ARCH.try_into().map_err(text)?;
    let program = |rules, otherwise, matched| {
        SeccompFilter::new(rules, otherwise, matched, arch).and_then(TryInto::try_into).map_err(text)
    };
    let error = |errno: i32| SeccompAction::Errno(errno.unsigned_abs());
    let unknown = BTreeMap::from([(REFUSED_AS_UNKNOWN, Vec::new())]);
    let unknown = program(unknown, SeccompAction::Allow, error(libc::ENOSYS))?;
    Ok([unknown, program(allowed().map_err(text)?, error(libc::EPERM), SeccompAction::Allow)?])
}

fn allowed() -> Result<BTreeMap<libc::c_long, Vec<SeccompRule>>, BackendError> {
    let mut rules: BTreeMap<_, _> = ALLOWED.into_iter().chain(ALLOWED_HERE).map(|call| (call, Vec::new())).collect();
    // All conditions of a rule hold; any rule of a call is enough.
    for (call, either) in conditions() {
        let either = either.into_iter().map(|all| {
            let all = all.into_iter().map(|(argument, mask, value)| {
                SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(mask), value)
            });
            SeccompRule::new(all.collect::<Result<_, _>>()?)
        });
        rules.insert(call, either.collect::<Result<_, _>>()?);
    }
    Ok(rules)
}

/// An argument's number, the bits of it that are looked at, and their value.
type Condition = (u8, u64, u64);

/// What depends on arguments.
fn conditions() -> [(libc::c_long, Vec<Vec<Condition>>); 7] {
    let number = |number: i32| u64::from(number.unsigned_abs());
    let all = u64::from(u32::MAX);
    let kind = |kind: i32| (1, TYPE_BITS, number(kind));
    let is = |argument, value: u64| vec![(argument, all, value)];
    let (thread, executable) = (number(libc::CLONE_THREAD), number(libc::PROT_EXEC));
    [
        (libc::SYS_socket, vec![vec![(0, all, number(libc::AF_INET)), kind(libc::SOCK_DGRAM)]]),
        // Signals reach their listeners by a pair.
        (libc::SYS_socketpair, vec![vec![(0, all, number(libc::AF_UNIX)), kind(libc::SOCK_STREAM)]]),
        (libc::SYS_ioctl, vec![is(1, libc::FIONBIO)]),
        (libc::SYS_prctl, vec![is(0, number(libc::PR_SET_NAME)), is(0, number(libc::PR_SET_VMA))]),
        // A thread, and not a process or a namespace.
        (libc::SYS_clone, vec![vec![(0, thread, thread)]]),
        // Memory that holds no instructions.
        (libc::SYS_mmap, vec![vec![(2, executable, 0)]]),
        (libc::SYS_mprotect, vec![vec![(2, executable, 0)]]),
    ]
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, UdpSocket};
    use std::process::Command;

    // spec: BOOT-18
    #[test]
    fn a_confined_server_starts_threads_and_no_programs() {
        let refused = std::thread::spawn(|| {
            super::restrict().unwrap();
            let denied = |error: std::io::Error| error.kind() == ErrorKind::PermissionDenied;
            let inner = std::thread::spawn(|| UdpSocket::bind("127.0.0.1:0").is_ok()).join().unwrap();
            let program = Command::new("/bin/true").status().is_err_and(denied);
            (inner, program, TcpListener::bind("127.0.0.1:0").is_err_and(denied))
        });
        assert_eq!(refused.join().unwrap(), (true, true, true));
    }
}
