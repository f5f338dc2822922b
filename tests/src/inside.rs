//! Doing something as a process of a world does it, without a program between that enters.

use std::fs::File;

use crate::World;
use nix::sched::{CloneFlags, setns, unshare};

/// Runs `act` on a thread in the world's network and mount namespaces, whose children are in its process namespace too.
///
/// The thread cannot start threads of its own.
///
/// # Panics
/// When `act` does, or when the caller is not root.
pub fn inside<T: Send>(world: &World, act: impl FnOnce() -> T + Send) -> T {
    let namespaces = ["pid", "net", "mnt"].map(|kind| {
        let path = world.path(format!("/proc/1/ns/{kind}"));
        File::open(&path).unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()))
    });
    let work = || {
        // A mount namespace is entered only by a thread whose working folder is its own.
        unshare(CloneFlags::CLONE_FS).expect("root may leave the shared folder");
        let kinds = [CloneFlags::CLONE_NEWPID, CloneFlags::CLONE_NEWNET, CloneFlags::CLONE_NEWNS];
        for (namespace, kind) in namespaces.iter().zip(kinds) {
            setns(namespace, kind).expect("root may enter a namespace");
        }
        act()
    };
    std::thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
