//! Taking back what killed supervisors left: every command that acts does it first.

use std::collections::BTreeSet;
use std::time::Duration;

use cni_protocol::runtime::Runtime;
use locks::Locks;
use nix::sys::signal::Signal;
use terms::{ContainerId, ObjectKey};

use super::chain;
use super::network::PodNetwork;
use super::owner;
use super::record::{Attachments, OnHost, Phase, Status};
use super::store::{Store, StoreError, VmLock};
use super::supervisor::{Pod as _, RealPod, release_host};

/// A VM without a supervisor that had something on the host, and was repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaped {
    /// Namespace and name of the VM.
    pub key: ObjectKey,
    /// Whether its supervisor was killed; else it ended and could not remove everything.
    pub was_killed: bool,
    /// What could not be removed; the VM's record stays then, and the next command tries again.
    pub left: Option<String>,
    /// Whether `left` is set because its record cannot be read.
    pub is_damaged: bool,
}

/// How long a plugin may go on after its supervisor was killed; `ptp` alone waits two seconds for IPv6 addresses.
const PLUGIN_PATIENCE: Duration = Duration::from_secs(30);

/// Removes what VMs without a supervisor have on the host, and the records of those that are not kept.
///
/// # Errors
/// When the VMs cannot be listed.
pub fn reap(store: &Store) -> Result<Vec<Reaped>, StoreError> {
    let mut reaped = Vec::new();
    for key in store.keys()? {
        // A dead supervisor may have left a plugin at work, which holds the lock until it is done.
        let is_dead = |status: Status| status.supervisor.is_some_and(|supervisor| !supervisor.is_alive());
        let patience = if store.status(&key).is_ok_and(is_dead) { PLUGIN_PATIENCE } else { Duration::ZERO };
        match reap_within(store, &key, patience) {
            // It concerns one VM alone; `ps` shows it.
            Some(Reaped { is_damaged: true, left: Some(left), .. }) => tracing::warn!(left, "a damaged record"),
            vm => reaped.extend(vm),
        }
    }
    tidy(store)?;
    Ok(reaped)
}

/// Removes what a process left that was killed while it made or removed a VM: a partial folder, the host's settings. Does
/// nothing while another process holds the host lock, because that one is at work.
fn tidy(store: &Store) -> Result<(), StoreError> {
    if let Err(error) = Locks::new(store.layout().locks()).sweep() {
        tracing::warn!(error = %chain(&error), "unused locks cannot be removed");
    }
    let is_untidy = || Ok::<_, StoreError>(!store.drafts()?.is_empty() || is_host_unreleased(store)?);
    if !is_untidy()? {
        return Ok(());
    }
    let Some(host) = store.lock_host_soon()? else { return Ok(()) };
    store.remove_drafts(&host)?;
    if let Err(error) = release_host(store, &host) {
        tracing::warn!(error = %chain(&error), "the host cannot be restored");
    }
    Ok(())
}

fn is_host_unreleased(store: &Store) -> Result<bool, StoreError> {
    Ok(store.layout().host_state().exists() && !store.is_any_on_host()?)
}

/// [`reap`] for one VM whose supervisor does not answer. `None` when there is nothing to remove.
#[must_use]
pub fn reap_one(store: &Store, key: &ObjectKey) -> Option<Reaped> {
    reap_within(store, key, PLUGIN_PATIENCE)
}

fn reap_within(store: &Store, key: &ObjectKey, patience: Duration) -> Option<Reaped> {
    let (was_killed, left, is_damaged) = match dead(store, key, patience) {
        Ok(Some((lock, status))) => {
            let after = status.kept.then(|| after_repair(&status));
            (!status.is_final(), clean_up(store, key, &lock, &status, after).err(), false)
        }
        Ok(None) | Err(StoreError::NotFound(_)) => return None,
        Err(error) => (true, Some(chain(&error)), matches!(error, StoreError::Damaged { .. })),
    };
    Some(Reaped { key: key.clone(), was_killed, left, is_damaged })
}

/// VMs that have something on the host and no supervisor, for commands that only report: nothing is changed.
///
/// # Errors
/// When the VMs cannot be listed.
pub fn in_need_of_repair(store: &Store) -> Result<Vec<Status>, StoreError> {
    let is_dead = |key: &ObjectKey, status: &Status| match status.supervisor {
        Some(supervisor) => !supervisor.is_alive(),
        // Not begun: the holder of the lock is about to start it.
        None => matches!(store.lock_vm(key, Duration::ZERO), Ok(Some(_))),
    };
    let mut found = Vec::new();
    for key in store.keys()? {
        // A listing reports a record that cannot be read; a VM that was removed meanwhile is gone.
        let Ok(status) = store.status(&key) else { continue };
        if status.on_host == OnHost::Present && is_dead(&key, &status) {
            found.push(status);
        }
    }
    Ok(found)
}

/// Kills the supervisor of a VM, if it has one, and waits until it is gone. The kernel kills its launcher with it.
/// Returns whether there was one.
#[must_use]
pub fn kill_supervisor(store: &Store, key: &ObjectKey) -> bool {
    const PATIENCE: Duration = Duration::from_secs(10);
    let Some(supervisor) = store.supervisor(key) else { return false };
    if let Err(error) = supervisor.signal(Signal::SIGKILL) {
        tracing::warn!(pid = supervisor.pid, %error, "the supervisor cannot be killed");
    }
    supervisor.ends_within(PATIENCE)
}

/// Removes what a VM has on the host whose supervisor was killed for a user's `stop`, and keeps it stopped. Returns what
/// could not be removed.
///
/// # Errors
/// When there is no such VM, or another process works on it.
pub fn stop_unsupervised(store: &Store, key: &ObjectKey) -> Result<Option<String>, StoreError> {
    let busy = || StoreError::Busy { path: store.layout().vm(key).lock() };
    let lock = store.lock_vm(key, PLUGIN_PATIENCE)?.ok_or_else(busy)?;
    let status = store.status(key)?;
    let stopped = Status {
        phase: Phase::Stopped,
        strategy: status.strategy.after_stop(),
        kept: true,
        reason: Some("ended by force: its supervisor did not answer".to_owned()),
        ..after_repair(&status)
    };
    Ok(clean_up(store, key, &lock, &status, Some(stopped)).err())
}

/// Removes a VM without a supervisor, even if not everything of it can be removed from the host.
///
/// # Errors
/// When it is supervised, or its folder cannot be removed.
pub fn abandon(store: &Store, key: &ObjectKey) -> Result<Option<String>, StoreError> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let path = || store.layout().vm(key).lock();
    let lock = match store.lock_vm(key, PATIENCE) {
        Err(StoreError::Damaged { .. }) => store.lock_damaged(&store.lock_host()?, key)?,
        lock => lock?,
    };
    let lock = lock.ok_or_else(|| StoreError::Busy { path: path() })?;
    let left = match store.status(key) {
        Ok(status) if status.on_host == OnHost::Absent => None,
        Ok(status) => pod_of(store, key, status.container_id).abandon().err(),
        Err(error) => detach_damaged(store, key).err().map(|left| format!("{}; {left}", chain(&error))),
    };
    let host = store.lock_host()?;
    store.remove(&host, key, &lock)?;
    let released = release_host(store, &host).err().map(|error| chain(&error));
    let left: Vec<_> = left.into_iter().chain(released).collect();
    Ok((!left.is_empty()).then(|| left.join("; ")))
}

/// Detaches a VM whose status cannot be read, under the ids that the runtime's cache has for it.
fn detach_damaged(store: &Store, key: &ObjectKey) -> Result<(), String> {
    let mut ids = cached_ids(store, key);
    let is_known = !ids.is_empty();
    // Without an id no plugin can be called, but processes and the namespace can be removed.
    ids.extend((!is_known).then(|| "unknown".parse().ok()).flatten());
    let mut left: Vec<_> = ids.into_iter().filter_map(|id| pod_of(store, key, id).abandon().err()).collect();
    if !is_known && store.attachments(key).map_or(true, |attachments| !attachments.list.is_empty()) {
        left.push("plugins may have left something on the host: the id of its attachments is not known".to_owned());
    }
    if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
}

/// Ids under which a VM's networks were attached and not detached.
fn cached_ids(store: &Store, key: &ObjectKey) -> BTreeSet<ContainerId> {
    let runtime = Runtime::new(&store.layout().cni_cache(), Vec::new());
    let cached = runtime.cached().unwrap_or_default().into_iter().flatten().map(|cached| cached.attachment);
    cached.filter(|attachment| PodNetwork::is_of(attachment, key)).map(|attachment| attachment.container_id).collect()
}

/// The lock and the status of a VM that has something on the host and no supervisor.
fn dead(store: &Store, key: &ObjectKey, patience: Duration) -> Result<Option<(VmLock, Status)>, StoreError> {
    let Some(lock) = store.lock_vm(key, patience)? else { return Ok(None) };
    let status = store.status(key)?;
    Ok((status.on_host == OnHost::Present).then_some((lock, status)))
}

/// Detaches a VM, then records `after` or removes the record, and restores the host if no other VM needs it.
fn clean_up(
    store: &Store,
    key: &ObjectKey,
    lock: &VmLock,
    status: &Status,
    after: Option<Status>,
) -> Result<(), String> {
    pod_of(store, key, status.container_id.clone()).detach()?;
    let forget = || {
        let host = store.lock_host()?;
        match after {
            Some(after) => store.put_status(lock, &after)?,
            None => store.remove(&host, key, lock)?,
        }
        Ok::<_, StoreError>(release_host(store, &host).map_err(|error| chain(&error)))
    };
    forget().map_err(|error| chain(&error))?
}

/// The status of a VM that is kept after its supervisor was killed. One that had ended before keeps its phase and reason.
fn after_repair(status: &Status) -> Status {
    let killed = "its supervisor was killed; what it left on the host was removed";
    Status {
        phase: if status.is_final() { status.phase } else { Phase::Failed },
        reason: if status.is_final() { status.reason.clone() } else { Some(killed.to_owned()) },
        engine: None,
        engine_reason: None,
        left: None,
        on_host: OnHost::Absent,
        addresses: Vec::new(),
        host_links: Vec::new(),
        supervisor: None,
        launcher: None,
        running_since_unix_seconds: None,
        ..status.clone()
    }
}

fn pod_of(store: &Store, key: &ObjectKey, container_id: ContainerId) -> RealPod {
    // Without the list, the namespace and what runs in it can still be removed.
    let attachments = store.attachments(key).unwrap_or_else(|error| {
        tracing::warn!(error = %chain(&error), "the list of attachments cannot be read");
        Attachments::default()
    });
    let network = PodNetwork::of(store.layout(), key, container_id, attachments);
    RealPod::new(store.clone(), network, owner::recorded(store, key), None)
}

#[cfg(test)]
mod tests {
    use api::run_strategy::RunStrategy;

    use super::*;
    use crate::files;
    use crate::fixtures::{key, owner, status};
    use crate::layout::Layout;
    use crate::process::Process;
    use crate::store::NewVm;

    // spec: RUN-1
    #[test]
    fn a_partial_folder_is_removed_unless_a_command_is_at_work_on_it() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(Layout::below(root.path()));
        let draft = store.layout().vms().join(".new-default.web");
        files::make_dir(&draft, 0o755).unwrap();
        let host = store.lock_host().unwrap();
        assert_eq!(reap(&store).unwrap(), []);
        assert!(draft.exists(), "the process that makes it has lost it");
        drop(host);
        assert_eq!(reap(&store).unwrap(), []);
        assert_eq!(files::entries(store.layout().run()).unwrap(), [store.layout().host_lock()]);
    }

    // spec: RUN-10
    #[test]
    fn a_damaged_record_stops_no_command_and_is_removed() {
        for damage in ["status.json", "lock"] {
            let root = tempfile::tempdir().unwrap();
            let store = Store::new(Layout::below(root.path()));
            let new = |name| {
                let (key, status) = (key(name), Status { on_host: OnHost::Absent, ..status(name) });
                let (object, attachments) = (serde_json::json!({}), Attachments::default());
                let (machine, wiring) = (b"{}".as_slice(), b"{}".as_slice());
                let owner = owner();
                let vm = NewVm {
                    key: &key,
                    status: &status,
                    object: &object,
                    machine,
                    wiring,
                    attachments: &attachments,
                    owner,
                };
                store.create(&store.lock_host().unwrap(), &vm).unwrap()
            };
            drop((new("whole"), new("damaged")));
            let path = store.layout().vm(&key("damaged")).dir().join(damage);
            match damage {
                "lock" => std::fs::remove_file(&path).unwrap(),
                _ => std::fs::write(&path, "{").unwrap(),
            }
            assert_eq!(reap(&store).unwrap(), []);
            assert_eq!(abandon(&store, &key("damaged")).unwrap(), None, "{damage}");
            assert_eq!(store.keys().unwrap(), [key("whole")]);
        }
    }

    #[test]
    fn a_supervisor_that_is_stopped_is_killed_and_its_vm_is_kept_stopped() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(Layout::below(root.path()));
        let mut supervisor = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::noted(supervisor.id().cast_signed()).unwrap();
        process.signal(Signal::SIGSTOP).unwrap();
        let status = Status { supervisor: Some(process), kept: false, ..status("web") };
        let (key, attachments) = (key("web"), Attachments::default());
        let vm = NewVm {
            key: &key,
            status: &status,
            object: &serde_json::json!({}),
            machine: b"{}",
            wiring: b"{}",
            attachments: &attachments,
            owner: owner(),
        };
        let lock = store.create(&store.lock_host().unwrap(), &vm).unwrap();
        assert!(kill_supervisor(&store, &key));
        supervisor.wait().unwrap();
        assert!(!kill_supervisor(&store, &key), "it was killed already");
        drop(lock);
        assert_eq!(stop_unsupervised(&store, &key).unwrap(), None);
        let status = store.status(&key).unwrap();
        assert_eq!((status.phase, status.on_host, status.supervisor), (Phase::Stopped, OnHost::Absent, None));
        assert_eq!(status.strategy, RunStrategy::Halted);
    }

    // spec: NET-2
    #[test]
    fn what_had_ended_keeps_its_end_and_only_what_was_killed_is_said_to_be() {
        let reason = Some("network pods: ADD failed".to_owned());
        let ended =
            Status { phase: Phase::Stopped, reason: reason.clone(), left: Some("a".to_owned()), ..status("web") };
        let ended = after_repair(&ended);
        assert_eq!(
            (ended.phase, ended.reason, ended.left, ended.on_host),
            (Phase::Stopped, reason, None, OnHost::Absent)
        );
        let killed = after_repair(&Status { phase: Phase::Running, ..status("web") });
        assert_eq!(killed.phase, Phase::Failed);
        assert!(killed.reason.is_some_and(|reason| reason.starts_with("its supervisor was killed")));
    }
}
