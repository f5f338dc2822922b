//! What a supervisor is connected to: a pod that can be attached and detached and a launcher that can be started in it.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cni_protocol::runtime::{ExecError, RuntimeError};
use cni_protocol::spec::Code;
use hostnet::netns::Netns;
use nix::sys::signal::Signal;
use protocol::launch_file::LaunchFile;
use wiring::Owner;

use super::links::{self, LinkWatch};
use crate::child::Child;
use crate::files::{self, FileError, at};
use crate::host::{HostError, HostGuard};
use crate::launch::{self, LaunchError};
use crate::launcher::LauncherFile;
use crate::layout::VmLayout;
use crate::network::{NetworkError, PodNetwork, Wired};
use crate::record::Attachment;
use crate::resolv::Resolv;
use crate::service_store::{ServiceStore, ServiceStoreError, instance_of};
use crate::store::{HostLock, Store, StoreError};
use crate::supervisor_log::SupervisorLog;
use crate::{chain, process, quota, scratch};

/// Why a VM could not be started, as it is told to who started it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartFailure {
    /// The exit code that goes with it.
    pub exit_code: u8,
    /// Why, in one line for the user.
    pub message: String,
}

/// A pod, real or made up.
pub trait Pod: Clone + Send + Sync + 'static {
    /// Makes the namespace and attaches it to its networks; the name servers are those that the guest is told of. Blocks.
    ///
    /// # Errors
    /// The first failure; [`Self::detach`] removes what was done.
    fn attach(&self) -> Result<Wired, StartFailure>;

    /// Takes back everything that is of the pod, however much that is. Blocks.
    ///
    /// # Errors
    /// What could not be removed, as a message.
    fn detach(&self) -> Result<(), String>;

    /// Starts a launcher in the pod, from the thread that lives as long as this process.
    ///
    /// # Errors
    /// When it could not be started.
    fn launch(&self) -> Result<Child, StartFailure>;

    /// Begins to follow the pod's links, if that is possible. Does not block.
    fn follow_links(&self) -> Option<LinkWatch>;

    /// Brings Services up to date with the VM's status. Blocks. A failure is logged: a VM is not ended because others cannot
    /// find it.
    fn serve(&self);

    /// Restores the host's settings if no VM needs them any more. Blocks.
    ///
    /// # Errors
    /// What could not be put back.
    fn release_host(&self, host: &HostLock) -> Result<(), StartFailure>;
}

/// A pod on this host.
#[derive(Debug, Clone)]
pub struct RealPod {
    store: Store,
    network: PodNetwork,
    owner: Owner,
    machine: Option<(LaunchFile, LauncherFile)>,
    log: Option<SupervisorLog>,
    scratch: Arc<OnceLock<File>>,
    /// Set when there was a namespace of this name before ours was made: it is not ours to take down.
    is_others: Arc<OnceLock<()>>,
}

impl RealPod {
    /// A pod that was written down as `owner`'s, with the machine that is to run in it and the program that runs it; without
    /// them it can only be taken down.
    #[must_use]
    pub fn new(store: Store, network: PodNetwork, owner: Owner, machine: Option<(LaunchFile, LauncherFile)>) -> Self {
        let (scratch, is_others) = Default::default();
        Self { store, network, owner, machine, log: None, scratch, is_others }
    }

    /// The same, whose launcher's output goes into this log.
    #[must_use]
    pub fn with_log(self, log: SupervisorLog) -> Self {
        Self { log: Some(log), ..self }
    }

    /// Takes back what can be, and forgets the rest.
    ///
    /// # Errors
    /// What may remain on the host, in words.
    pub fn abandon(&self) -> Result<(), String> {
        self.clean_up(PodNetwork::abandon)
    }

    fn clean_up(&self, detach: impl FnOnce(&PodNetwork) -> Result<(), Vec<NetworkError>>) -> Result<(), String> {
        let mut left: Vec<String> = Vec::new();
        if self.is_others.get().is_none() {
            left.extend(end_all(self.owner, &self.network));
            let failures = detach(&self.network).err().into_iter().flatten();
            left.extend(failures.map(|failure| chain(&failure)));
        }
        let removed = scratch::remove(&self.store.layout().scratch(), &self.network.container_id);
        left.extend(removed.err().map(|error| chain(&error)));
        if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
    }

    fn attach_all(&self) -> Result<Wired, StartFailure> {
        let layout = self.store.layout();
        if self.network.netns.exists() {
            let _ = self.is_others.set(());
            let netns = self.network.netns.display();
            return Err(StartFailure::failed(format!(
                "the network namespace {netns} is there already and not this VM's"
            )));
        }
        if self.machine.is_some() {
            let folder = scratch::claim(&layout.scratch(), &self.network.container_id, self.owner)?;
            // A second attach in one process would find the folder of the first still held.
            let _ = self.scratch.set(folder);
            let own = layout.vm(&self.network.key).launcher_dir();
            if let Err(error) = quota::mount_on(&own, self.owner) {
                tracing::warn!(%error, "no file system for the VM process alone: what it writes below /run is not bounded");
            }
        }
        let id = &self.network.container_id;
        HostGuard::new(layout, &self.store.lock_host()?).begin_attachment(id)?;
        let attached = self.network.attach();
        let made = attached.as_ref().map_or(&[][..], |wired| &wired.host_links);
        let noted = HostGuard::new(layout, &self.store.lock_host()?).end_attachment(id, made);
        // What failed first is what is told.
        let wired = attached?;
        noted?;
        let (resolv, vm) = (self.name_servers(&wired)?, layout.vm(&self.network.key));
        files::replace(&vm.resolv_conf(), resolv.to_text().as_bytes(), 0o644)?;
        for (pod_interface, resolv) in &wired.of_networks {
            files::replace(&vm.nic_resolv_conf(pod_interface), resolv.to_text().as_bytes(), 0o644)?;
        }
        Ok(Wired { resolv, ..wired })
    }

    /// Where the launcher's output goes: into the log, or to where ours goes.
    fn output(&self, vm: &VmLayout) -> Result<OwnedFd, StartFailure> {
        match &self.log {
            Some(log) => log.pipe().map_err(|error| StartFailure::failed(format!("no pipe for the launcher: {error}"))),
            None => {
                let path = vm.supervisor_log();
                let file = OpenOptions::new().append(true).create(true).open(&path).map_err(at("open", &path))?;
                Ok(file.into())
            }
        }
    }

    fn name_servers(&self, wired: &Wired) -> Result<Resolv, StartFailure> {
        let object = files::read_json(&self.store.layout().vm(&self.network.key).object())?;
        let dns = instance_of(&object).map(|instance| instance.spec.dns).unwrap_or_default();
        Ok(Resolv::of_vm(&dns, &wired.resolv, || Resolv::of_host_below(Path::new("/"))))
    }
}

impl Pod for RealPod {
    fn attach(&self) -> Result<Wired, StartFailure> {
        self.attach_all()
    }

    fn detach(&self) -> Result<(), String> {
        self.clean_up(PodNetwork::detach)
    }

    fn launch(&self) -> Result<Child, StartFailure> {
        let Some((machine, launcher)) = &self.machine else {
            return Err(StartFailure::failed("there is no machine to run".to_owned()));
        };
        let layout = self.store.layout();
        let (vm, scratch) = (layout.vm(&self.network.key), layout.scratch().join(self.network.container_id.as_str()));
        let (own, output) = (layout.own_folders(), self.output(&vm)?);
        Ok(launch::start(launcher, machine, &vm, &self.network.netns, &scratch, &own, output)?)
    }

    fn follow_links(&self) -> Option<LinkWatch> {
        let named = |attachment: &Attachment| (attachment.ifname.clone(), attachment.called().to_owned());
        let interfaces = self.network.attachments.list.iter().map(named);
        let netns = Netns::open(&self.network.netns).map_err(std::io::Error::other);
        let followed = netns.and_then(|netns| links::follow(&netns, interfaces.collect()));
        // It costs a line in a log, not the VM.
        followed.inspect_err(|error| tracing::warn!(%error, "links are not followed")).ok()
    }

    fn serve(&self) {
        if !self.store.layout().services().exists() {
            return;
        }
        let served = self.store.lock_host().map_err(ServiceStoreError::from);
        if let Err(error) = served.and_then(|host| ServiceStore::new(&self.store, &host).serve()) {
            tracing::warn!(error = %chain(&error), "Services cannot be updated");
        }
    }

    fn release_host(&self, host: &HostLock) -> Result<(), StartFailure> {
        Ok(release_host(&self.store, host)?)
    }
}

/// Takes the VMs that are gone out of Services, and puts the host back if no VM is on it.
///
/// # Errors
/// When VMs cannot be listed or something cannot be put back.
pub fn release_host(store: &Store, host: &HostLock) -> Result<(), ReleaseError> {
    let served = ServiceStore::new(store, host).serve();
    if store.is_any_on_host()? {
        return Ok(served?);
    }
    // The host is restored all the same, and the first failure is the one to report.
    let restored = HostGuard::new(store.layout(), host).restore();
    if let (Err(_), Err(error)) = (&served, &restored) {
        tracing::warn!(error = %chain(error), "the host cannot be restored");
    }
    served?;
    Ok(restored?)
}

/// Why the host could not be released.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// The records of VMs cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The host's network cannot be restored.
    #[error("the host's network could not be restored")]
    Host(#[from] HostError),
    /// What serves Services cannot be removed from the host.
    #[error(transparent)]
    Served(#[from] ServiceStoreError),
}

/// Ends what still runs in the pod: a launcher or an engine whose supervisor was killed. Returns who did not end.
fn end_all(owner: Owner, network: &PodNetwork) -> Option<String> {
    const PATIENCE: Duration = Duration::from_secs(5);
    // No VM is root's: a record that says so is damaged, and its processes are everybody's.
    let all = if owner.uid == 0 { Vec::new() } else { process::of_vm(owner, &network.netns) };
    for process in &all {
        if let Err(error) = process.signal(Signal::SIGKILL) {
            tracing::warn!(pid = process.pid, %error, "cannot be ended");
        }
    }
    let left = all.iter().filter(|process| !process.ends_within(PATIENCE));
    let left: Vec<_> = left.map(|process| process.pid.to_string()).collect();
    (!left.is_empty()).then(|| format!("processes {} do not end", left.join(", ")))
}

impl StartFailure {
    /// A failure of ours or the system's.
    #[must_use]
    pub fn failed(message: String) -> Self {
        Self { exit_code: 1, message }
    }

    /// The start was cancelled by a signal or a request.
    #[must_use]
    pub fn interrupted() -> Self {
        Self { exit_code: 130, message: "interrupted; everything was removed".to_owned() }
    }
}

impl From<NetworkError> for StartFailure {
    fn from(error: NetworkError) -> Self {
        let exit_code = if let NetworkError::Plugin { source, .. } = &error { exit_code(source) } else { 1 };
        Self { exit_code, message: chain(&error) }
    }
}

/// 3 a configuration or annotation that a plugin refuses, 6 a plugin the host lacks, 1 otherwise.
fn exit_code(error: &RuntimeError) -> u8 {
    const INPUT: [Code; 3] = [Code::UNSUPPORTED_FIELD, Code::DECODE, Code::INVALID_CONFIG];
    match error {
        RuntimeError::Plugin(ExecError::NotFound { .. }) => 6,
        RuntimeError::Plugin(ExecError::Refused { source, .. }) if INPUT.contains(&source.code) => 3,
        RuntimeError::Undo { add, .. } => exit_code(add),
        _ => 1,
    }
}

impl From<LaunchError> for StartFailure {
    fn from(error: LaunchError) -> Self {
        Self { exit_code: error.exit_code(), message: chain(&error) }
    }
}

macro_rules! ordinary_failure {
    ($($error:ty),*) => {$(
        impl From<$error> for StartFailure {
            fn from(error: $error) -> Self {
                Self::failed(chain(&error))
            }
        }
    )*};
}

ordinary_failure!(FileError, StoreError, HostError, ReleaseError);
