//! Addresses from ranges, in process: configuration and files of the reference plugin `host-local`.
//!
//! *Guarantees.* Under the lock of the reference plugin, so both may share a folder. An owner's addresses are on record before
//! they are reserved: DEL reads one file, however many reservations there are. By default all of it is on tmpfs: what a reboot
//! ends, it forgets.
//! *Assumptions.* Who shares the folder holds its lock.

mod conf;
mod range;
mod store;

use std::net::IpAddr;

use cni_protocol::plugin::{AttachmentKey, NetConf};
use cni_protocol::spec::{CniResult, Code, Error, IpConfig};
use hostnet::{Locks, Records};
use serde::{Deserialize, Serialize};

use crate::names::Key;
pub(super) use conf::Pools;
use range::RangeSet;
use store::{Owner, Store, StoreError};

/// Which addresses an owner has.
const FOLDER: &str = "/run/tapvisor/addresses";

/// What is on record of an owner.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Reserved {
    /// The folder of the reservations.
    folder: std::path::PathBuf,
    container_id: terms::ContainerId,
    if_name: terms::IfName,
    addresses: Vec<IpAddr>,
}

fn records() -> Records {
    Records::new(FOLDER, Locks::default())
}

fn key(conf: &NetConf, owner: &AttachmentKey) -> Key {
    Key::of(conf.name(), &owner.container_id, &owner.if_name)
}

fn failed(error: &dyn std::error::Error) -> Error {
    Error::from_chain(Code::IO, error)
}

/// The addresses of an attachment by its key.
pub(crate) fn leases(network: &terms::NetworkName, key: &str) -> Result<Vec<IpAddr>, Error> {
    let bytes = records().read(network, key).map_err(|error| failed(&error))?;
    let reserved = bytes.and_then(|bytes| serde_json::from_slice::<Reserved>(&bytes).ok());
    Ok(reserved.map(|reserved| reserved.addresses).unwrap_or_default())
}

/// Reserves an address of each range set; when that fails, nothing is left of it.
pub(super) fn add(conf: &NetConf, pools: &Pools, owner: &AttachmentKey) -> Result<CniResult, Error> {
    let store = Store::of(conf.name(), pools.data_dir.as_deref());
    let _lock = store.lock().map_err(busy)?;
    let chosen = choose(pools, &store)?;
    let reserved = Reserved {
        folder: store.folder().to_owned(),
        container_id: owner.container_id.clone(),
        if_name: owner.if_name.clone(),
        addresses: chosen.iter().map(|(address, _)| *address).collect(),
    };
    let key = key(conf, owner);
    let text = serde_json::to_vec(&reserved).unwrap_or_default();
    if !records().create(conf.name(), key.as_str(), &text).map_err(|error| failed(&error))? {
        let msg = format!("addresses are reserved for {} of {} already: DEL first", owner.if_name, owner.container_id);
        return Err(Error::new(Code::INTERNAL, msg));
    }
    let made = chosen.iter().enumerate().try_for_each(|(index, (address, set))| {
        store.reserve(*address, &Owner::of(owner), pools.index_of(set).unwrap_or(index))
    });
    if let Err(error) = made {
        release_all(&store, &reserved)
            .and_then(|()| records().remove(conf.name(), key.as_str()).map_err(|error| failed(&error)))?;
        return Err(failed(&error));
    }
    let ips = chosen.iter().filter_map(|(address, set)| {
        let range = set.range_of(*address)?;
        let address = terms::IpNetwork::new(*address, range.subnet.prefix()).ok()?;
        Some(IpConfig { address, gateway: Some(range.gateway), interface: None })
    });
    Ok(CniResult { interfaces: Vec::new(), ips: ips.collect(), routes: pools.routes.clone(), dns: pools.dns()? })
}

/// The address of each range set that this call reserves: the one asked for, else the next that is free.
fn choose<'p>(pools: &'p Pools, store: &Store) -> Result<Vec<(IpAddr, &'p RangeSet)>, Error> {
    let mut asked = pools.asked.clone();
    let mut chosen = Vec::new();
    for (index, set) in pools.sets.iter().enumerate() {
        let wanted = asked.iter().position(|address| set.range_of(*address).is_some()).map(|at| asked.remove(at));
        let address = match wanted {
            Some(address) => set.checked(address, |address| store.is_free(address))?,
            None => {
                let last = store.last_reserved(index);
                let free = set.after(last).find(|address| store.is_free(*address));
                free.ok_or_else(|| Error::new(Code::TRY_AGAIN, format!("no address is free in {set}")))?
            }
        };
        chosen.push((address, set));
    }
    match asked.first() {
        Some(address) => Err(Error::new(Code::INVALID_CONFIG, format!("address {address} is in none of the ranges"))),
        None => Ok(chosen),
    }
}

/// Releases an owner's addresses. One that has none is no error.
pub(super) fn del(conf: &NetConf, data_dir: Option<&std::path::Path>, owner: &AttachmentKey) -> Result<(), Error> {
    let key = key(conf, owner);
    match read(conf, &key)? {
        Some(reserved) => {
            let store = Store::at(reserved.folder.clone());
            let _lock = store.lock().map_err(busy)?;
            release_all(&store, &reserved)?;
            records().remove(conf.name(), key.as_str()).map_err(|error| failed(&error))
        }
        None => {
            // Reserved by the reference plugin, or not at all. What a killed writer left of a record says nothing.
            records().remove(conf.name(), key.as_str()).map_err(|error| failed(&error))?;
            let Some(store) = Store::shared(conf.name(), data_dir) else { return Ok(()) };
            let _lock = store.lock().map_err(busy)?;
            store.release_owned(&Owner::of(owner)).map_err(|error| failed(&error))
        }
    }
}

fn release_all(store: &Store, reserved: &Reserved) -> Result<(), Error> {
    let owner = AttachmentKey { container_id: reserved.container_id.clone(), if_name: reserved.if_name.clone() };
    let owner = Owner::of(&owner);
    reserved.addresses.iter().try_for_each(|address| store.release(*address, &owner)).map_err(|error| failed(&error))
}

fn read(conf: &NetConf, key: &Key) -> Result<Option<Reserved>, Error> {
    let bytes = records().read(conf.name(), key.as_str()).map_err(|error| failed(&error))?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Whether an owner's reservations are as they were made.
pub(super) fn check(conf: &NetConf, data_dir: Option<&std::path::Path>, owner: &AttachmentKey) -> Result<(), Error> {
    let lost = |address: IpAddr| {
        Error::new(Code::INTERNAL, format!("the reservation of {address} is not there or is another container's"))
    };
    let none = || Error::new(Code::INTERNAL, format!("no address is reserved for {}", owner.container_id));
    match read(conf, &key(conf, owner))? {
        Some(reserved) => {
            let store = Store::at(reserved.folder);
            let owner = Owner::of(owner);
            let other = reserved.addresses.iter().find(|address| !store.is_owned(**address, &owner));
            other.map_or(Ok(()), |address| Err(lost(*address)))
        }
        None => {
            let store = Store::shared(conf.name(), data_dir).ok_or_else(none)?;
            let owned = store.owned(&Owner::of(owner)).map_err(|error| failed(&error))?;
            if owned.is_empty() { Err(none()) } else { Ok(()) }
        }
    }
}

/// Whether an ADD would find an address in each range set.
pub(super) fn status(conf: &NetConf, pools: &Pools) -> Result<(), Error> {
    let store = Store::of(conf.name(), pools.data_dir.as_deref());
    for (index, set) in pools.sets.iter().enumerate() {
        if !set.after(store.last_reserved(index)).any(|address| store.is_free(address)) {
            return Err(Error::new(Code::NOT_AVAILABLE, format!("no address is free in {set}")));
        }
    }
    Ok(())
}

/// Releases what belongs to no listed attachment.
pub(super) fn gc(conf: &NetConf, data_dir: Option<&std::path::Path>) -> Result<(), Error> {
    // Without a list nothing is said about what is valid.
    let Some(valid) = conf.valid_attachments() else { return Ok(()) };
    for text in records().keys(conf.name()).map_err(|error| failed(&error))? {
        let key = Key::recorded(text);
        if valid.iter().any(|one| self::key(conf, one) == key) {
            continue;
        }
        if let Some(reserved) = read(conf, &key)? {
            let store = Store::at(reserved.folder.clone());
            let _lock = store.lock().map_err(busy)?;
            release_all(&store, &reserved)?;
        }
        records().remove(conf.name(), key.as_str()).map_err(|error| failed(&error))?;
    }
    let Some(store) = Store::shared(conf.name(), data_dir) else { return Ok(()) };
    let _lock = store.lock().map_err(busy)?;
    let valid: Vec<_> = valid.iter().map(Owner::of).collect();
    store.release_others(&valid).map_err(|error| failed(&error))
}

fn busy(error: StoreError) -> Error {
    match error {
        StoreError::Busy { .. } => Error::from_chain(Code::TRY_AGAIN, &error),
        other => failed(&other),
    }
}
