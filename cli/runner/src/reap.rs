//! Taking back what killed supervisors left: every command does it first.

use std::time::Duration;

use terms::ObjectKey;

use super::chain;
use super::network::PodNetwork;
use super::record::{Attachments, OnHost, Phase, Status};
use super::store::{Store, StoreError, VmLock};
use super::supervisor::{Pod as _, RealPod, release_host};

/// A VM whose supervisor was found dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaped {
    /// Which VM.
    pub key: ObjectKey,
    /// What could not be taken back; it stays known then, and the next command tries again.
    pub left: Option<String>,
}

/// How long a plugin may go on after its supervisor was killed; `ptp` alone waits two seconds for IPv6 addresses.
const PLUGIN_PATIENCE: Duration = Duration::from_secs(30);

/// Takes back what VMs without a supervisor have on the host, and forgets those that are not kept.
///
/// # Errors
/// When the VMs cannot be listed.
pub fn reap(store: &Store) -> Result<Vec<Reaped>, StoreError> {
    let mut reaped = Vec::new();
    for key in store.keys()? {
        // A dead supervisor may have left a plugin at work, which holds the lock until it is done.
        let is_dead = |status: Status| status.supervisor.is_some_and(|supervisor| !supervisor.is_alive());
        let patience = if store.status(&key).is_ok_and(is_dead) { PLUGIN_PATIENCE } else { Duration::ZERO };
        reaped.extend(reap_within(store, &key, patience));
    }
    tidy(store)?;
    Ok(reaped)
}

/// Takes back what is nobody's any more, because who made or removed a VM was killed over it: half a folder, the host's
/// settings. Who holds the host lock is at it and is left alone.
fn tidy(store: &Store) -> Result<(), StoreError> {
    let is_untidy = || Ok::<_, StoreError>(!store.drafts()?.is_empty() || is_host_unreleased(store)?);
    if !is_untidy()? {
        return Ok(());
    }
    let Some(host) = store.lock_host_soon()? else { return Ok(()) };
    store.remove_drafts(&host)?;
    if let Err(error) = release_host(store, &host) {
        tracing::warn!("{}", chain(&error));
    }
    Ok(())
}

fn is_host_unreleased(store: &Store) -> Result<bool, StoreError> {
    Ok(store.layout().host_state().exists() && !store.is_any_on_host()?)
}

/// [`reap`] for one VM whose supervisor does not answer. `None` when there is nothing to take back.
#[must_use]
pub fn reap_one(store: &Store, key: &ObjectKey) -> Option<Reaped> {
    reap_within(store, key, PLUGIN_PATIENCE)
}

fn reap_within(store: &Store, key: &ObjectKey, patience: Duration) -> Option<Reaped> {
    let left = match dead(store, key, patience) {
        Ok(Some((lock, status))) => take_back(store, key, &lock, &status).err(),
        Ok(None) | Err(StoreError::NotFound(_)) => return None,
        Err(error) => Some(chain(&error)),
    };
    Some(Reaped { key: key.clone(), left })
}

/// Removes a VM that nobody supervises, even if not everything of it can be taken back.
///
/// # Errors
/// When it is supervised, or its folder cannot be removed.
pub fn abandon(store: &Store, key: &ObjectKey) -> Result<Option<String>, StoreError> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let path = || store.layout().vm(key).lock();
    let lock = store.lock_vm(key, PATIENCE)?.ok_or_else(|| StoreError::Busy { path: path() })?;
    let left = match store.status(key) {
        Ok(status) if status.on_host == OnHost::Absent => None,
        Ok(status) => pod_of(store, key, &status).detach().err(),
        Err(error) => Some(chain(&error)),
    };
    let host = store.lock_host()?;
    store.remove(&host, key, &lock)?;
    let released = release_host(store, &host).err().map(|error| chain(&error));
    Ok(left.or(released))
}

/// The lock and the status of a VM that has something on the host and no supervisor.
fn dead(store: &Store, key: &ObjectKey, patience: Duration) -> Result<Option<(VmLock, Status)>, StoreError> {
    let Some(lock) = store.lock_vm(key, patience)? else { return Ok(None) };
    let status = store.status(key)?;
    Ok((status.on_host == OnHost::Present).then_some((lock, status)))
}

fn take_back(store: &Store, key: &ObjectKey, lock: &VmLock, status: &Status) -> Result<(), String> {
    pod_of(store, key, status).detach()?;
    let forget = || {
        let host = store.lock_host()?;
        if status.kept {
            store.put_status(lock, &after_repair(status))?;
        } else {
            store.remove(&host, key, lock)?;
        }
        Ok::<_, StoreError>(release_host(store, &host).map_err(|error| chain(&error)))
    };
    forget().map_err(|error| chain(&error))?
}

/// A VM that somebody wants to keep is not forgotten because its supervisor was killed.
fn after_repair(status: &Status) -> Status {
    Status {
        phase: Phase::Failed,
        reason: Some("its supervisor was killed; what it left was taken back".to_owned()),
        on_host: OnHost::Absent,
        addresses: Vec::new(),
        host_links: Vec::new(),
        supervisor: None,
        launcher: None,
        running_since_unix_seconds: None,
        ..status.clone()
    }
}

fn pod_of(store: &Store, key: &ObjectKey, status: &Status) -> RealPod {
    // Without the list, the namespace and what runs in it can still be removed.
    let attachments = store.attachments(key).unwrap_or_else(|error| {
        tracing::warn!("{}", chain(&error));
        Attachments::default()
    });
    let network = PodNetwork::of(store.layout(), key, status.container_id.clone(), attachments);
    RealPod::new(store.clone(), network, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;
    use crate::layout::Layout;

    #[test]
    fn half_a_folder_is_removed_by_the_next_command_unless_somebody_is_at_it() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(Layout::below(root.path()));
        let draft = store.layout().vms().join(".new-default.web");
        files::make_dir(&draft, 0o755).unwrap();
        let host = store.lock_host().unwrap();
        assert_eq!(reap(&store).unwrap(), []);
        assert!(draft.exists(), "its maker was robbed of it");
        drop(host);
        assert_eq!(reap(&store).unwrap(), []);
        assert_eq!(files::entries(store.layout().run()).unwrap(), [store.layout().host_lock()]);
    }
}
