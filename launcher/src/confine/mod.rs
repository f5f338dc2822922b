//! The launcher confines itself: Landlock and seccomp, once its engine runs and before it makes a thread.
//!
//! *Guarantees.* From then on no thread of this process opens a file outside its folder and the credentials for its guest, executes a program, makes a
//! namespace, traces a process, or makes a socket other than a local one. *Assumptions.* Everything it needs is open.
//! A kernel that lacks a part gives a warning in the log, and `status` says what is in force.

pub mod landlock;
pub mod seccomp;

use std::path::Path;

use self::landlock::Access;
use crate::engine::Confine;

/// What of the confinement is in force; `status` reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Confinement {
    /// Whether Landlock rules are in force.
    pub(crate) landlock: bool,
    /// The filter of system calls.
    pub(crate) seccomp: bool,
}

/// What of it this kernel does not have, each with its reason: tried in a thread that ends with it.
#[must_use]
pub fn lacks() -> Vec<String> {
    let try_all = || {
        let landlock = landlock::restrict_thread(&Access::default()).err().map(|why| format!("Landlock: {why}"));
        let seccomp = seccomp::restrict_thread().err().map(|why| format!("seccomp: {why}"));
        landlock.into_iter().chain(seccomp).collect()
    };
    let tried = std::thread::Builder::new().name("confine".into()).spawn(try_all).map(std::thread::JoinHandle::join);
    match tried {
        Ok(Ok(lacks)) => lacks,
        Ok(Err(_)) | Err(_) => vec!["Landlock and seccomp: could not be tried".to_owned()],
    }
}

/// Confines `what` to the launcher's folder and folders that it reads; Landlock binds this thread and those that it makes. What
/// the kernel lacks is reported in the log.
pub(crate) fn confine(folder: &Path, read: Vec<&Path>, what: Confine) -> Confinement {
    let access = Access { write: vec![folder], read, may_signal: true, ..Access::default() };
    let landlock = landlock::restrict_thread(&access);
    if let Err(why) = &landlock {
        tracing::warn!(reason = %why, "the VM process runs without Landlock");
    }
    let seccomp = match what {
        Confine::AllThreads => seccomp::restrict_all_threads(),
        Confine::ThisThread => seccomp::restrict_thread(),
    };
    if let Err(why) = &seccomp {
        tracing::warn!(reason = %why, "the VM process runs without seccomp");
    }
    Confinement { landlock: landlock.is_ok(), seccomp: seccomp.is_ok() }
}
