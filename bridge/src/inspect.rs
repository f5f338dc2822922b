//! What is attached to this plugin's networks on this host, from the records.

use std::net::IpAddr;

use cni_protocol::spec::Error;
use terms::{ContainerId, IfName, NetworkName};

use super::error::{BridgeError, Refusal};
use super::ipam;
use super::names::Key;
use super::record::{Record, records};

/// A pod's interface in one of the plugin's networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The network's name.
    pub network: NetworkName,
    /// CNI_CONTAINERID.
    pub container_id: ContainerId,
    /// CNI_IFNAME.
    pub if_name: IfName,
    /// The host's end of its cable.
    pub host_end: IfName,
    /// Its addresses, as far as they were reserved in process.
    pub leases: Vec<IpAddr>,
}

/// Every attachment on record, in the order of networks. Changes nothing and takes no lock: one that is being made or removed
/// may be among them or not.
///
/// # Errors
/// When the records cannot be read.
pub fn attachments() -> Result<Vec<Attached>, Error> {
    let records = records();
    let mut all = Vec::new();
    for (network, key) in records.all().map_err(BridgeError::from)? {
        let bytes = records.read(&network, &key).map_err(BridgeError::from)?;
        let Some(record) = bytes.and_then(|bytes| Record::from_bytes(&bytes)) else { continue };
        let leases = ipam::leases(&network, &key)?;
        let host_end = Key::recorded(key).host_end().map_err(|error| BridgeError::from(Refusal::from(error)))?;
        let Record { container_id, if_name, .. } = record;
        all.push(Attached { network, container_id, if_name, host_end, leases });
    }
    Ok(all)
}
