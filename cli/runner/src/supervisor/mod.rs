//! The root process behind one VM: from an empty namespace to nothing left, whatever happens in between.
//!
//! *Flow:* attach the networks → start the launcher and follow it → apply the run strategy, again and again → detach →
//! restore the host if this was the last VM. [`machine`] decides without I/O; [`event_loop`] executes what it decides.
//! *Guarantees:* the launcher never outlives this process (the kernel kills it); what is on the host is recorded before it
//! is made; a start that fails leaves nothing; nothing blocks the loop that serves signals, requests and deadlines.
//! *Assumptions:* the caller made the VM's folder, recorded the host's settings, and left the VM's lock open.

mod control;
mod event_loop;
mod http;
mod launcher;
mod links;
mod machine;
mod outcome;
mod pod;
mod probes;
mod requests;

use std::os::unix::net::UnixStream;

use terms::ObjectKey;

use self::event_loop::EventLoop;
pub use self::links::{LinkEvent, LinkWatch};
pub use self::pod::{Pod, RealPod, ReleaseError, StartFailure, release_host};
use super::files;
use super::process::Process;
use super::record::Status;
use super::store::{Store, StoreError, VmLock};

/// What a supervisor is made of.
#[derive(Debug)]
pub struct Parts<P> {
    /// The records of VMs on this host.
    pub store: Store,
    /// The VM that it supervises.
    pub key: ObjectKey,
    /// The VM's lock, held until the supervisor ends.
    pub lock: VmLock,
    /// What it is connected to, and how its launcher is started.
    pub pod: P,
    /// Returns the time in seconds since 1970.
    pub clock: fn() -> u64,
    /// In 0..=1; spreads the delays of VMs that fail together.
    pub spread: f32,
}

/// A supervisor that has not started anything yet.
#[derive(Debug)]
pub struct Supervisor<P> {
    parts: Parts<P>,
    status: Status,
}

impl<P: Pod> Supervisor<P> {
    /// A supervisor of a VM that was recorded.
    ///
    /// # Errors
    /// When its status cannot be read, or its process not be recorded.
    pub fn new(parts: Parts<P>) -> Result<Self, StoreError> {
        let own_process = Process::noted(std::process::id().cast_signed());
        let status = Status { supervisor: own_process, ..parts.store.status(&parts.key)? };
        parts.store.put_status(&parts.lock, &status)?;
        let own = format!("{}\n", std::process::id());
        files::replace(&parts.store.layout().vm(&parts.key).pid(), own.as_bytes(), 0o644)?;
        Ok(Self { parts, status })
    }

    /// Runs the VM to its end, and returns the exit code of the process. The starter, if any, is told what happens.
    ///
    /// # Errors
    /// When clients or signals cannot be received; nothing was started then.
    pub async fn run(self, starter: Option<UnixStream>) -> std::io::Result<u8> {
        let (event_loop, actions) = EventLoop::new(self.parts, self.status, starter)?;
        Ok(event_loop.run(actions).await)
    }
}

#[cfg(test)]
mod tests;
