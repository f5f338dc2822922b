//! The system calls that the launcher makes once its engine runs; every other fails with EPERM.
//!
//! A list of what is allowed: what a later kernel adds is refused. EPERM and not the end of the process, for a library's
//! call that is not on the list must not cost a running guest.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter, apply_filter_all_threads,
};

/// System calls that are allowed with any arguments.
const ALLOWED: [libc::c_long; 93] = [
    // Files and sockets that are open, and those in the launcher's folder, which Landlock sees to.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_mkdirat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_getcwd,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
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
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
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
    libc::SYS_sysinfo,
    libc::SYS_uname,
    // Signals, and the engine's end.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_kill,
    libc::SYS_tgkill,
    libc::SYS_waitid,
    // See `REFUSED_AS_UNKNOWN`.
    libc::SYS_clone3,
];

/// And the older ones that the C library still makes on this architecture.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: [libc::c_long; 15] = [
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_mkdir,
    libc::SYS_readlink,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_dup2,
    libc::SYS_time,
    libc::SYS_wait4,
    libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: [libc::c_long; 1] = [libc::SYS_wait4];

/// The C library tries it for threads, and takes `clone` when the kernel says that it has no such call: a filter does not see
/// its arguments, so it would let processes and namespaces be made.
const REFUSED_AS_UNKNOWN: libc::c_long = libc::SYS_clone3;

/// Terminals, and whether a descriptor blocks. Not TIOCSTI, with which a terminal is typed on.
const IOCTLS: [u64; 7] =
    [libc::TCGETS, libc::TCSETS, libc::TCSETSW, libc::TCSETSF, libc::TIOCGWINSZ, libc::FIONBIO, libc::FIONREAD];

/// Names of threads and of mappings; limits of memory that a thread's stack is made by.
const PRCTLS: [i32; 3] = [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_VMA];

/// Binds all threads of this process.
///
/// # Errors
/// When the kernel does not have seccomp's filters, or refuses, in words.
pub fn restrict_all_threads() -> Result<(), String> {
    filters()?.iter().try_for_each(|filter| apply_filter_all_threads(filter)).map_err(|error| error.to_string())
}

/// Binds this thread, and all threads that it makes from now on.
///
/// # Errors
/// When the kernel does not have seccomp's filters, or refuses, in words.
pub fn restrict_thread() -> Result<(), String> {
    filters()?.iter().try_for_each(|filter| apply_filter(filter)).map_err(|error| error.to_string())
}

/// In the order in which they are put in force. The kernel obeys the strictest, so the first refuses what the second allows.
fn filters() -> Result<[BpfProgram; 2], String> {
    let words = |error: BackendError| error.to_string();
    let arch = std::env::consts::ARCH.try_into().map_err(words)?;
    let program = |rules, otherwise, matched| {
        SeccompFilter::new(rules, otherwise, matched, arch).and_then(TryInto::try_into).map_err(words)
    };
    let error = |errno: i32| SeccompAction::Errno(errno.unsigned_abs());
    let unknown = BTreeMap::from([(REFUSED_AS_UNKNOWN, Vec::new())]);
    let unknown = program(unknown, SeccompAction::Allow, error(libc::ENOSYS))?;
    Ok([unknown, program(allowed().map_err(words)?, error(libc::EPERM), SeccompAction::Allow)?])
}

fn allowed() -> Result<BTreeMap<libc::c_long, Vec<SeccompRule>>, BackendError> {
    let anyhow = ALLOWED.into_iter().chain(ALLOWED_HERE).map(|call| (call, Vec::new()));
    let mut rules: BTreeMap<_, _> = anyhow.collect();
    for (call, conditions) in conditions() {
        let each = conditions.into_iter().map(|(argument, length, how, value)| {
            SeccompRule::new(vec![SeccompCondition::new(argument, length, how, value)?])
        });
        rules.insert(call, each.collect::<Result<_, _>>()?);
    }
    Ok(rules)
}

type Condition = (u8, SeccompCmpArgLen, SeccompCmpOp, u64);

/// What depends on an argument: any of the conditions is enough.
fn conditions() -> [(libc::c_long, Vec<Condition>); 8] {
    let number = |number: i32| u64::from(number.unsigned_abs());
    let any = |argument: u8, values: &[u64]| -> Vec<Condition> {
        values.iter().map(|value| (argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *value)).collect()
    };
    let bits = |argument: u8, mask: u64, value: u64| -> Vec<Condition> {
        vec![(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(mask), value)]
    };
    let unix = [number(libc::AF_UNIX)];
    let thread = number(libc::CLONE_THREAD);
    let executable = number(libc::PROT_EXEC);
    [
        (libc::SYS_socket, any(0, &unix)),
        (libc::SYS_socketpair, any(0, &unix)),
        (libc::SYS_ioctl, any(1, &IOCTLS)),
        (libc::SYS_prctl, any(0, &PRCTLS.map(number))),
        // A thread, and not a process or a namespace.
        (libc::SYS_clone, bits(0, thread, thread)),
        // Memory that holds no instructions.
        (libc::SYS_mmap, bits(2, executable, 0)),
        (libc::SYS_mprotect, bits(2, executable, 0)),
        // Limits are read and not set: the pointer to new ones is null.
        (libc::SYS_prlimit64, bits(2, u64::MAX, 0)),
    ]
}
