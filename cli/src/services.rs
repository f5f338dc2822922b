//! `tapvisor services`, and what `run` and `rm` do about Services.

use std::process::ExitCode;

use api::manifest::Object;
use serde_json::json;
use terms::ObjectKey;

use super::arguments::Output;
use super::failure::{Exit, Failure};
use super::{open_store_to_read, terminal};
use protocol::chain::chain;
use runner::service_store::{Known, ServiceStore, ServiceStoreError};
use runner::store::Store;
use services::{Frontend, ServiceError};

/// Writes a manifest's Services down and serves them, all or none.
pub(crate) fn take_in(store: &Store, objects: &[Object]) -> Result<Vec<ObjectKey>, Failure> {
    let host = store.lock_host()?;
    let services = ServiceStore::new(store, &host);
    let keys = services.add(objects)?;
    if let Err(error) = services.serve() {
        keys.iter().try_for_each(|key| services.remove(key))?;
        return Err(error.into());
    }
    for known in services.list()?.iter().filter(|known| keys.contains(&known.service.metadata.key)) {
        warn_of_unserved(known);
    }
    Ok(keys)
}

fn warn_of_unserved(known: &Known) {
    for address in known.assigned_service().unserved() {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        terminal::say(&format!(
            "tapvisor: Service {}: {address} has no effect: the Service has no {family}; \
             `ipFamilyPolicy: PreferDualStack` gives it both families",
            known.service.metadata.key
        ));
    }
}

/// Forgets Services and no longer serves them.
pub(crate) fn take_out(store: &Store, keys: &[ObjectKey]) -> Result<(), Failure> {
    if keys.is_empty() {
        return Ok(());
    }
    let host = store.lock_host()?;
    let services = ServiceStore::new(store, &host);
    // Each of them is removed, whatever becomes of the others, and all failures are reported, the first one first.
    let removed = keys.iter().filter_map(|key| services.remove(key).err()).collect::<Vec<_>>();
    let failures = removed.into_iter().chain(services.serve().err()).map(Failure::from);
    failures.reduce(Failure::with).map_or(Ok(()), Err)
}

/// Lists Services with the VMs behind each port.
pub(crate) fn list(output: Output) -> Result<ExitCode, Failure> {
    let store = open_store_to_read()?;
    let host = store.lock_host()?;
    let frontends = ServiceStore::new(&store, &host).frontends()?;
    match output {
        Output::Json => terminal::listing("ServiceList", &frontends.iter().map(|f| json!(f)).collect::<Vec<_>>()),
        Output::Table => {
            let rows: Vec<_> = frontends.iter().map(row).collect();
            terminal::table(&["SERVICE", "ADDRESSES", "PORT", "NODE-PORT", "READY"], &rows);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(frontend: &Frontend) -> Vec<String> {
    let joined = |items: Vec<String>| if items.is_empty() { "-".to_owned() } else { items.join(",") };
    vec![
        frontend.name.clone(),
        joined(frontend.addresses.iter().map(ToString::to_string).collect()),
        format!("{}/{}", frontend.port, frontend.protocol),
        frontend.node_port.map_or_else(|| "-".to_owned(), |port| port.to_string()),
        joined(frontend.backends.iter().map(ToString::to_string).collect()),
    ]
}

impl From<ServiceStoreError> for Failure {
    fn from(error: ServiceStoreError) -> Self {
        let exit = match &error {
            ServiceStoreError::Store(_)
            | ServiceStoreError::File(_)
            | ServiceStoreError::Host(_)
            | ServiceStoreError::Kernel(_)
            | ServiceStoreError::Read(_) => Exit::Failed,
            ServiceStoreError::Service(ServiceError::NoAddressLeft { .. } | ServiceError::NoPortLeft { .. }) => {
                Exit::Failed
            }
            ServiceStoreError::Service(_) => Exit::Invalid,
            ServiceStoreError::Overlap(_) => Exit::HostLacks,
            ServiceStoreError::Exists(_) => Exit::Exists,
            ServiceStoreError::NotFound(_) => Exit::NotFound,
        };
        Self::new(exit, chain(&error))
    }
}
