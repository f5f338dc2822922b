//! The store of this host's Services: their records, the VMs behind them, and what the kernel holds of both.
//!
//! *Guarantees.* Only the holder of the host lock updates it, so updates are serialized. The record is written before the
//! kernel is changed: `installed.json` holds what the kernel serves, or that this is unknown because an update was cut off;
//! then the next update replaces the whole table. Without a VM on the host the kernel holds no table.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use api::kubevirt::VirtualMachineInstance;
use api::manifest::{Body, Object};
use api::service::Service;
use hostnet::facts::Route;
use hostnet::linux::Linux;
use hostnet::nft::Transaction;
use hostnet::{Ask, Failure, Kernel, KernelError, Op};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use terms::{IfName, IpNetwork, Ipv4Network, Ipv6Network, ObjectKey};

use super::files::{self, FileError};
use super::host::{HostError, HostGuard, Overlap};
use super::record::OnHost;
use super::store::{HostLock, Store, StoreError};
use services::{Assigned, Endpoint, Frontend, Pool, Served, ServiceError, Services, loopback};

/// The ranges of cluster addresses.
const RANGE: Ipv4Network = Ipv4Network::new_checked(Ipv4Addr::new(172, 30, 78, 0), 24).unwrap();
const RANGE6: Ipv6Network =
    Ipv6Network::new_checked(Ipv6Addr::new(0xfd77, 0x7461, 0x7078, 0, 0, 0, 0, 0), 112).unwrap();

/// Why Services cannot be recorded or served.
#[derive(Debug, thiserror::Error)]
pub enum ServiceStoreError {
    /// A file of a Service cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The records of VMs cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What a Service asks for.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The host's network cannot be prepared or restored.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The ranges of cluster addresses overlap with others on this host.
    #[error("the range of Services' addresses {0}")]
    Overlap(Overlap),
    /// There is a Service of that name.
    #[error("Service {0} exists already: `tapvisor rm svc/{0}` removes it")]
    Exists(ObjectKey),
    /// No Service of that name is recorded.
    #[error("there is no Service {0}")]
    NotFound(ObjectKey),
    /// The kernel refused to change the nft table of Services.
    #[error("Services")]
    Kernel(#[from] Failure),
    /// The kernel does not answer.
    #[error("cannot read the host's network")]
    Read(#[from] KernelError),
}

/// A Service as it was recorded.
#[derive(Debug, Clone)]
pub struct Known {
    /// The Service of the manifest.
    pub service: Service,
    /// The addresses and ports that it was given here.
    pub assigned: Assigned,
}

impl Known {
    /// The Service with what it was given, as the table is computed from it.
    #[must_use]
    pub fn assigned_service(&self) -> Served<'_> {
        Served { service: &self.service, assigned: &self.assigned }
    }
}

/// The content of `services/<ns>.<name>.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    object: Value,
    assigned: Assigned,
}

/// `services/installed.json`; there is none while the kernel holds nothing of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Installed {
    /// What the kernel serves; `None` when an update was cut off.
    services: Option<Services>,
}

/// A VM as a Service may see it.
#[derive(Debug)]
struct Vm {
    key: ObjectKey,
    instance: VirtualMachineInstance,
    labels: api::metadata::Labels,
    addresses: Vec<IpAddr>,
    host_links: Vec<IfName>,
    ready: bool,
}

/// All Services, with the host lock held.
#[derive(Debug)]
pub struct ServiceStore<'a> {
    store: &'a Store,
    host: &'a HostLock,
}

impl<'a> ServiceStore<'a> {
    /// The Services of a store's host.
    #[must_use]
    pub fn new(store: &'a Store, host: &'a HostLock) -> Self {
        Self { store, host }
    }

    /// Gives Services addresses and writes them down, all or none. They are served with the next [`Self::serve`].
    ///
    /// # Errors
    /// When one exists, asks for what cannot be had, or cannot be written.
    pub fn add(&self, objects: &[Object]) -> Result<Vec<ObjectKey>, ServiceStoreError> {
        let known = self.list()?;
        let mut pool = Pool::new(ranges(), known.iter().map(Known::assigned_service));
        let mut records = Vec::new();
        for object in objects {
            let Body::Service(service) = &object.body else { continue };
            let key = &service.metadata.key;
            if known.iter().any(|known| known.service.metadata.key == *key) {
                return Err(ServiceStoreError::Exists(key.clone()));
            }
            records.push((key.clone(), Record { object: object.source.clone(), assigned: pool.assign(service)? }));
        }
        if !records.is_empty() {
            files::make_dir(&self.store.layout().services(), 0o755)?;
        }
        for (count, (key, record)) in records.iter().enumerate() {
            if let Err(error) = files::replace_json(&self.path(key), record) {
                // All of them are removed, and the first failure is the one to report.
                for (key, _) in records.iter().take(count) {
                    if let Err(error) = files::remove_file(&self.path(key)) {
                        tracing::warn!(error = %super::chain(&error), "the record of a Service cannot be removed");
                    }
                }
                return Err(error.into());
            }
        }
        Ok(records.into_iter().map(|(key, _)| key).collect())
    }

    /// Forgets a Service. It is not served any more after the next [`Self::serve`].
    ///
    /// # Errors
    /// When there is none of that name, or its file cannot be removed.
    pub fn remove(&self, key: &ObjectKey) -> Result<(), ServiceStoreError> {
        let path = self.path(key);
        if !path.exists() {
            return Err(ServiceStoreError::NotFound(key.clone()));
        }
        files::remove_file(&path)?;
        self.remove_empty_folder();
        Ok(())
    }

    /// The folder goes with the last record.
    fn remove_empty_folder(&self) {
        let _ = std::fs::remove_dir(self.store.layout().services());
    }

    /// All Services, by name.
    ///
    /// # Errors
    /// When they cannot be listed. One that cannot be understood is told to the log and passed over.
    pub fn list(&self) -> Result<Vec<Known>, ServiceStoreError> {
        let mut known = Vec::new();
        for path in files::entries(&self.store.layout().services())? {
            if path == self.installed_path() {
                continue;
            }
            let Record { object, assigned } = match files::read_json(&path) {
                Err(error) => {
                    tracing::warn!(error = %super::chain(&error), "a Service is not served");
                    continue;
                }
                Ok(record) => record,
            };
            match api::manifest::from_value(&object, &path.display().to_string()).map(|object| object.body) {
                Ok(Body::Service(service)) => known.push(Known { service, assigned }),
                Ok(_) | Err(_) => tracing::warn!(path = %path.display(), "is not a Service"),
            }
        }
        Ok(known)
    }

    /// The Services with the VMs behind each of their ports.
    ///
    /// # Errors
    /// When Services or VMs cannot be read.
    pub fn frontends(&self) -> Result<Vec<Frontend>, ServiceStoreError> {
        Ok(self.resolve(&self.list()?, &self.vms()?).frontends)
    }

    /// Brings the kernel to serve what is written down, and nothing when no VM is on the host.
    ///
    /// # Errors
    /// When something cannot be read or written, the ranges are taken, or the kernel refuses.
    pub fn serve(&self) -> Result<(), ServiceStoreError> {
        let known = self.list()?;
        let installed: Option<Installed> = match files::read_json(&self.installed_path()) {
            Err(error) if error.is_absent() => None,
            read => Some(read?),
        };
        let vms = if known.is_empty() { Vec::new() } else { self.vms()? };
        match (vms.is_empty(), installed) {
            (true, None) => Ok(()),
            (true, Some(installed)) => self.withdraw(&installed),
            (false, installed) => self.install(self.resolve(&known, &vms), installed, &vms),
        }
    }

    fn install(&self, mut wanted: Services, installed: Option<Installed>, vms: &[Vm]) -> Result<(), ServiceStoreError> {
        if installed.is_none()
            && let Some(overlap) = HostGuard::new(self.store.layout(), self.host).overlap(&ranges())?
        {
            return Err(ServiceStoreError::Overlap(overlap));
        }
        let path = self.installed_path();
        let served = installed.and_then(|installed| installed.services);
        let mut kernel = Linux::here();
        // NodePorts on the loopback leave by the VM's link with a loopback source, until they are translated.
        let links = vms.iter().flat_map(|vm| &vm.host_links).collect::<BTreeSet<_>>();
        let facts = kernel.gather(&Ask::network().with_sysctls(loopback::settings()))?;
        wanted.refuses_loopback_v6 = loopback::is_unanswered(&links, &facts);
        let (settings, ways_back) = loopback::opened(&links, &facts);
        HostGuard::new(self.store.layout(), self.host).write(&settings)?;
        kernel.execute(&ways_back)?;
        if served.as_ref() == Some(&wanted) {
            return Ok(());
        }
        files::replace_json(&path, &Installed::default())?;
        kernel.execute(&Vec::from_iter(routes().map(Op::ReplaceRoute)))?;
        let update = |from: Option<&Services>| Op::Nft(wanted.update(from));
        if kernel.execute(&[update(served.as_ref())]).is_err() {
            // Another program has changed the table: replace it as a whole.
            kernel.execute(&[update(None)])?;
        }
        for failure in hostnet::tear_down(&mut kernel, &wanted.stale_flows(served.as_ref())) {
            tracing::warn!(error = %super::chain(&failure), "a conntrack entry cannot be deleted");
        }
        Ok(files::replace_json(&path, &Installed { services: Some(wanted) })?)
    }

    fn withdraw(&self, installed: &Installed) -> Result<(), ServiceStoreError> {
        let mut ops = vec![Op::Nft(Transaction::delete([Services::table_id()]))];
        ops.extend(routes().map(Op::DeleteRoute));
        ops.extend(Services::default().stale_flows(installed.services.as_ref()));
        let mut kernel = Linux::here();
        ops.extend(loopback::closed(&kernel.gather(&Ask::network())?));
        if let Some(failure) = hostnet::tear_down(&mut kernel, &ops).into_iter().next() {
            return Err(failure.into());
        }
        files::remove_file(&self.installed_path())?;
        self.remove_empty_folder();
        Ok(())
    }

    fn resolve(&self, known: &[Known], vms: &[Vm]) -> Services {
        let served: Vec<_> = known.iter().map(Known::assigned_service).collect();
        let endpoints: Vec<_> = vms
            .iter()
            .map(|vm| Endpoint {
                labels: &vm.labels,
                spec: &vm.instance.spec,
                namespace: vm.key.namespace(),
                addresses: &vm.addresses,
                ready: vm.ready,
            })
            .collect();
        Services::resolve(&served, &endpoints, ranges())
    }

    /// VMs that are on the host.
    fn vms(&self) -> Result<Vec<Vm>, ServiceStoreError> {
        let mut vms = Vec::new();
        for key in self.store.keys()? {
            let status = match self.store.status(&key) {
                Err(StoreError::NotFound(_)) => continue,
                // No Service leads to it, and others are served.
                Err(error @ StoreError::Damaged { .. }) => {
                    tracing::warn!(error = %super::chain(&error), "the record of a VM is damaged, no Service leads to it");
                    continue;
                }
                status => status?,
            };
            if status.on_host == OnHost::Absent {
                continue;
            }
            let object: Result<Value, _> = files::read_json(&self.store.layout().vm(&key).object());
            let Some(instance) = object.ok().as_ref().and_then(instance_of) else {
                tracing::warn!(vm = %key, "its object cannot be read");
                continue;
            };
            let labels = instance.pod_labels();
            let (addresses, host_links, ready) = (status.addresses, status.host_links, status.ready);
            vms.push(Vm { key, instance, labels, addresses, host_links, ready });
        }
        Ok(vms)
    }

    fn path(&self, key: &ObjectKey) -> PathBuf {
        self.store.layout().services().join(format!("{}.{}.json", key.namespace(), key.name()))
    }

    fn installed_path(&self) -> PathBuf {
        installed_path(self.store)
    }
}

/// No namespace is called so: a record's name has a dot more.
fn installed_path(store: &Store) -> PathBuf {
    store.layout().services().join("installed.json")
}

/// Whether the kernel holds Services of ours.
pub fn are_installed(store: &Store) -> bool {
    installed_path(store).exists()
}

/// The instance that an object as it was written describes.
pub(crate) fn instance_of(object: &Value) -> Option<VirtualMachineInstance> {
    match api::manifest::from_value(object, "record").ok()?.body {
        Body::VirtualMachine(vm) => Some(vm.instance()),
        Body::VirtualMachineInstance(instance) => Some(instance),
        _ => None,
    }
}

/// The ranges of cluster addresses.
pub fn ranges() -> Vec<IpNetwork> {
    vec![IpNetwork::V4(RANGE), IpNetwork::V6(RANGE6)]
}

/// Without a route, a packet of the host's own to a cluster address would be refused before it is translated.
fn routes() -> impl Iterator<Item = Route> {
    let loopback = "lo".parse::<IfName>();
    ranges().into_iter().filter_map(move |range| Some(Route::by(loopback.clone().ok()?, range)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;

    fn objects(text: &str) -> Vec<Object> {
        api::manifest::parse(text, "test").unwrap()
    }

    fn service(name: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{selector: {{app: x}}, ports: [{{port: 53, protocol: UDP}}]}}}}"
        )
    }

    #[test]
    fn services_are_written_down_listed_and_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(Layout::below(root.path()));
        let host = store.lock_host().unwrap();
        let services = ServiceStore::new(&store, &host);
        let keys = services.add(&objects(&format!("{}\n---\n{}", service("one"), service("two")))).unwrap();
        let listed = services.list().unwrap();
        assert_eq!(listed.len(), 2);
        assert_ne!(listed[0].assigned.cluster_ips, listed[1].assigned.cluster_ips);
        assert!(matches!(services.add(&objects(&service("one"))), Err(ServiceStoreError::Exists(_))));
        services.remove(&keys[0]).unwrap();
        assert!(matches!(services.remove(&keys[0]), Err(ServiceStoreError::NotFound(_))));
        assert_eq!(services.list().unwrap().len(), 1);
    }
}
