//! Writing VMs down and starting their supervisors.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use terms::{ContainerId, ObjectKey};

use super::disk_use::{DiskUseError, expect_free};
use super::files::{FileError, at};
use super::host::{HostError, HostGuard, Overlap};
use super::layout::hex;
use super::network::{DEFAULT_NETWORK, PluginFolders, ranges};
use super::owner::{OwnerError, Owners};
use super::plan::{OwnedError, VmPlan};
use super::record::{Kind, OnHost, Phase, Status};
use super::scratch;
use super::store::{HostLock, NewVm, Store, StoreError, VmLock};
use crate::sys::spawn::{self, THIS_PROGRAM};

/// Why VMs could not be written down or started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A VM's folder cannot be made, or the VM exists.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of the VM cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The host's network cannot be prepared.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The built-in network's range is taken.
    #[error("the default network {0}: choose another network with --network, or remove what is in the way")]
    Overlap(Overlap),
    /// Names of namespaces are shortened: another VM, or another program, has this one.
    #[error("{key}: its network namespace would be {}, which is {owner}: choose another name for the VM", netns.display())]
    NetnsTaken {
        /// The VM whose start is refused.
        key: ObjectKey,
        /// Path of the namespace that it would have.
        netns: PathBuf,
        /// The VM or program that has it, as text.
        owner: String,
    },
    /// No user for its processes.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// The user does not go with the machine.
    #[error("{key}")]
    Owned {
        /// The VM that cannot be started.
        key: ObjectKey,
        /// The rule that the request breaks with this user.
        #[source]
        source: OwnedError,
    },
    /// A disk that another VM has.
    #[error(transparent)]
    DiskUse(#[from] Box<DiskUseError>),
    /// No random bytes for an id: /dev/urandom cannot be read.
    #[error("cannot make an id")]
    Random(#[source] io::Error),
    /// The machine does not turn into JSON.
    #[error("cannot write the machine of {key}")]
    Machine {
        /// The VM that cannot be started.
        key: ObjectKey,
        /// The error of the serializer.
        #[source]
        source: serde_json::Error,
    },
    /// The supervisor's process cannot be started.
    #[error("cannot start the supervisor of {key}")]
    Spawn {
        /// The VM that cannot be started.
        key: ObjectKey,
        /// The error of starting the process.
        #[source]
        source: io::Error,
    },
}

/// A VM that was written down and is not supervised yet. Dropped, it is what a killed supervisor leaves.
#[derive(Debug)]
pub struct Written {
    /// Namespace and name of the VM.
    pub key: ObjectKey,
    /// The VM's lock, as a supervisor holds it.
    pub lock: VmLock,
}

/// Writes VMs down, all or none, and prepares the host for those that start at once.
///
/// # Errors
/// When one of them exists, a range is taken, or the system refuses; nothing is left of any of them then.
pub fn write_down(
    store: &Store,
    plans: &[VmPlan],
    folders: &PluginFolders,
    kept: bool,
    now_unix_seconds: u64,
) -> Result<Vec<Written>, StartError> {
    let host = store.lock_host()?;
    store.remove_drafts(&host)?;
    scratch::sweep(&store.layout().scratch())?;
    for plan in plans.iter().filter(|plan| store.exists(&plan.key)) {
        remove_finished(store, &host, plan)?;
    }
    expect_own_netns(store, plans.iter().map(|plan| &plan.key))?;
    let starting: Vec<_> = plans.iter().filter(|plan| plan.strategy.starts_by_itself()).collect();
    let machines: Vec<_> = starting.iter().map(|plan| (&plan.key, &plan.launch.machine)).collect();
    expect_free(store, &machines)?;
    if starting.iter().any(|plan| plan.is_on_built_in_network()) {
        expect_free_ranges(store, &host)?;
    }
    let (mut written, mut owners) = (Vec::new(), Owners::of(store)?);
    let outcome = plans
        .iter()
        .try_for_each(|plan| {
            let owner = owners.next(&plan.key.to_string())?;
            let failed = |source| StartError::Owned { key: plan.key.clone(), source };
            let plan = plan.owned_by(owner).map_err(failed)?;
            let lock = write_one(store, &host, &plan, kept, now_unix_seconds)?;
            written.push(Written { key: plan.key, lock });
            Ok(())
        })
        .and_then(|()| if starting.is_empty() { Ok(()) } else { prepare_host(store, &host, folders) });
    match outcome {
        Ok(()) => Ok(written),
        Err(error) => {
            // All of them are removed, and the first failure is the one to report.
            for vm in &written {
                if let Err(error) = store.remove(&host, &vm.key, &vm.lock) {
                    tracing::warn!(error = %super::chain(&error), "the record of a VM cannot be removed");
                }
            }
            if let Err(error) = super::supervisor::release_host(store, &host) {
                tracing::warn!(error = %super::chain(&error), "the host cannot be restored");
            }
            Err(error)
        }
    }
}

/// Makes a VM that exists and does not run ready for a supervisor.
///
/// # Errors
/// When a range is taken or the system refuses; the VM is then as it was.
pub fn write_again(store: &Store, vm: &Written, folders: &PluginFolders) -> Result<(), StartError> {
    let host = store.lock_host()?;
    let before = store.status(&vm.key)?;
    expect_no_netns(store, &vm.key)?;
    expect_free(store, &[(&vm.key, &store.machine(&vm.key)?.machine)])?;
    if before.network.as_ref().is_some_and(|network| network.as_str() == DEFAULT_NETWORK) {
        expect_free_ranges(store, &host)?;
    }
    let status = Status {
        strategy: before.strategy.after_start(),
        phase: Phase::Starting,
        reason: None,
        engine: None,
        engine_reason: None,
        left: None,
        on_host: OnHost::Present,
        supervisor: None,
        restarts: 0,
        container_id: container_id()?,
        ..before.clone()
    };
    store.put_status(&vm.lock, &status)?;
    prepare_host(store, &host, folders).inspect_err(|_| {
        // The first failure is the one to report.
        if let Err(error) = store.put_status(&vm.lock, &before) {
            tracing::warn!(error = %super::chain(&error), "the status of a VM cannot be restored");
        }
    })
}

/// Starts the supervisor of a VM and returns the socket to it. The lock goes over to it.
///
/// # Errors
/// When the process cannot be started.
pub fn start_supervisor(store: &Store, vm: Written) -> Result<UnixStream, StartError> {
    let Written { key, lock } = vm;
    let failed = |source| StartError::Spawn { key: key.clone(), source };
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let log = store.layout().vm(&key).supervisor_log();
    let log = OpenOptions::new().append(true).create(true).open(&log).map_err(at("open", &log))?;
    let lock = OwnedFd::from(lock.file().try_clone().map_err(failed)?);
    let theirs = OwnedFd::from(theirs);
    let mut command = Command::new(THIS_PROGRAM);
    command
        .arg0("tapvisor")
        .args(["supervise", &key.to_string()])
        .args(["--lock-fd", &lock.as_raw_fd().to_string()])
        .args(["--starter-fd", &theirs.as_raw_fd().to_string()])
        .current_dir("/")
        .env("PATH", system_path())
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log);
    spawn::detach(&mut command, vec![lock, theirs]);
    // It is its own master from here on: it is not waited for, and becomes init's child when we end.
    command.spawn().map(drop).map_err(failed)?;
    Ok(ours)
}

/// Plugins execute `iptables`, which lies where an ordinary user's PATH does not look.
fn system_path() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    path
}

/// A VirtualMachineInstance that has run is over and makes room for the next one of its name; anything else does not.
fn remove_finished(store: &Store, host: &HostLock, plan: &VmPlan) -> Result<(), StartError> {
    // Its supervisor may be on its last steps, and other commands look whether there still is one.
    const PATIENCE: Duration = Duration::from_secs(5);
    let exists = || StoreError::Exists(plan.key.clone());
    let makes_room = || {
        let status = store.status(&plan.key)?;
        let is_over = status.is_final() && status.on_host == OnHost::Absent;
        let has_run = is_over && status.kind == Kind::VirtualMachineInstance && plan.kind == status.kind;
        if has_run { Ok(()) } else { Err(exists()) }
    };
    makes_room()?;
    let lock = store.lock_vm(&plan.key, PATIENCE)?.ok_or_else(exists)?;
    makes_room()?;
    Ok(store.remove(host, &plan.key, &lock)?)
}

fn write_one(
    store: &Store,
    host: &HostLock,
    plan: &VmPlan,
    kept: bool,
    now_unix_seconds: u64,
) -> Result<VmLock, StartError> {
    let starts = plan.strategy.starts_by_itself();
    let status = Status {
        namespace: plan.key.namespace().to_owned(),
        name: plan.key.name().to_owned(),
        kind: plan.kind,
        strategy: plan.strategy,
        phase: if starts { Phase::Starting } else { Phase::Stopped },
        reason: None,
        engine: None,
        engine_reason: None,
        left: None,
        // Recorded before anything is there: what a supervisor leaves that is killed at once is then found and removed.
        on_host: if starts { OnHost::Present } else { OnHost::Absent },
        kept: !starts,
        kept_once_running: kept,
        owner: plan.launch.wiring.owner(),
        container_id: container_id()?,
        netns: store.layout().netns(&plan.key),
        network: plan.network.clone(),
        addresses: Vec::new(),
        host_links: Vec::new(),
        supervisor: None,
        launcher: None,
        grace_period_seconds: plan.launch.machine.grace_period_seconds,
        created_unix_seconds: now_unix_seconds,
        running_since_unix_seconds: None,
        restarts: 0,
        ready: false,
    };
    let machine_error = |source| StartError::Machine { key: plan.key.clone(), source };
    let new = NewVm {
        key: &plan.key,
        status: &status,
        object: &plan.object,
        machine: &serde_json::to_vec_pretty(&plan.launch).map_err(machine_error)?,
        wiring: &serde_json::to_vec_pretty(&plan.launch.wiring).map_err(machine_error)?,
        attachments: &plan.attachments,
        owner: plan.launch.wiring.owner(),
    };
    Ok(store.create(host, &new)?)
}

/// A namespace's name is 48 bits of a hash, which people can make collide: names are compared in full before anything is made.
fn expect_own_netns<'a>(store: &Store, keys: impl Iterator<Item = &'a ObjectKey>) -> Result<(), StartError> {
    let layout = store.layout();
    let mut taken: BTreeMap<PathBuf, ObjectKey> =
        store.keys()?.into_iter().map(|key| (layout.netns(&key), key)).collect();
    for key in keys {
        expect_no_netns(store, key)?;
        if let Some(other) = taken.insert(layout.netns(key), key.clone()).filter(|other| other != key) {
            let owner = format!("that of {other}");
            return Err(StartError::NetnsTaken { key: key.clone(), netns: layout.netns(key), owner });
        }
    }
    Ok(())
}

fn expect_no_netns(store: &Store, key: &ObjectKey) -> Result<(), StartError> {
    let netns = store.layout().netns(key);
    if !netns.exists() {
        return Ok(());
    }
    let is_others = |other: &ObjectKey| other != key && store.layout().netns(other) == netns;
    let other = store.keys()?.into_iter().find(is_others);
    let owner = other.map_or_else(|| "there already and no VM's".to_owned(), |other| format!("that of {other}"));
    Err(StartError::NetnsTaken { key: key.clone(), netns, owner })
}

fn prepare_host(store: &Store, host: &HostLock, folders: &PluginFolders) -> Result<(), StartError> {
    HostGuard::new(store.layout(), host).prepare()?;
    Ok(folders.link_own()?)
}

/// The first VM on the built-in network looks whether its ranges are free; those after it would only meet the first.
fn expect_free_ranges(store: &Store, host: &HostLock) -> Result<(), StartError> {
    let is_on_it = |key: &ObjectKey| {
        store.status(key).is_ok_and(|status| {
            let network = status.network.as_ref().map(terms::NetworkName::as_str);
            status.on_host == OnHost::Present && network == Some(DEFAULT_NETWORK)
        })
    };
    if store.keys()?.iter().any(is_on_it) {
        return Ok(());
    }
    match HostGuard::new(store.layout(), host).overlap(&ranges())? {
        None => Ok(()),
        Some(overlap) => Err(StartError::Overlap(overlap)),
    }
}

/// 64 random hexadecimal digits, as container runtimes make them.
fn container_id() -> Result<ContainerId, StartError> {
    use std::io::Read as _;
    let mut bytes = [0; 32];
    File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes)).map_err(StartError::Random)?;
    hex(&bytes).parse().map_err(|invalid| StartError::Random(io::Error::other(format!("{invalid}"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;
    use crate::fixtures::key;
    use crate::layout::Layout;

    // spec: NET-3
    #[test]
    fn a_namespace_that_is_anothers_is_refused_by_the_full_names() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(Layout::below(root.path()));
        // The SHA-256 of both, with their namespace, begins with 066ab0d1b891.
        let (one, other) = (key("vm84e6fd"), key("vmf9df79"));
        let netns = store.layout().netns(&one);
        assert_eq!(netns, store.layout().netns(&other));
        let refusal = |keys: &[&ObjectKey]| expect_own_netns(&store, keys.iter().copied()).unwrap_err().to_string();
        expect_own_netns(&store, [&one].into_iter()).unwrap();
        let refused = refusal(&[&one, &other]);
        assert!(refused.starts_with("default/vmf9df79: ") && refused.contains("that of default/vm84e6fd"), "{refused}");
        files::make_dir(netns.parent().unwrap(), 0o755).unwrap();
        std::fs::write(&netns, "").unwrap();
        assert!(refusal(&[&other]).contains("there already and no VM's"), "{}", refusal(&[&other]));
        files::make_dir(store.layout().vm(&one).dir(), 0o755).unwrap();
        assert!(refusal(&[&other]).contains("that of default/vm84e6fd"), "{}", refusal(&[&other]));
    }
}
