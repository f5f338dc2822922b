//! Services on one machine: VMs reached under a Service's addresses as they are in a cluster.
//!
//! Service and VM objects → [`Services::resolve`] → [`Services::update`] → one nft transaction. All of it is pure.

mod allocate;
mod frontend;
pub mod loopback;
mod resolve;
mod stale;
mod table;
mod update;

use std::net::IpAddr;

use terms::{ObjectKey, Protocol};

pub use allocate::{Assigned, Pool, Served};
pub use frontend::Frontend;
pub use resolve::Endpoint;
pub use table::Services;

/// Why a Service cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// Without an address there is nothing to serve, and there is no DNS server here.
    #[error("Service {0}: spec.clusterIP: a headless Service needs the cluster's DNS, which one machine does not have")]
    Headless(ObjectKey),
    /// The requested cluster address belongs to another Service.
    #[error("Service {service}: spec.clusterIP: {address} is taken by another Service")]
    AddressTaken {
        /// The Service that requests it.
        service: ObjectKey,
        /// The address in `spec.clusterIP`.
        address: IpAddr,
    },
    /// The requested cluster address is in none of the ranges.
    #[error("Service {service}: spec.clusterIP: {address} is not in {ranges}")]
    OutOfRange {
        /// The Service that requests it.
        service: ObjectKey,
        /// The address in `spec.clusterIP`.
        address: IpAddr,
        /// The ranges of cluster addresses.
        ranges: String,
    },
    /// All cluster addresses of a family are in use.
    #[error("Service {service}: no cluster address is left")]
    NoAddressLeft {
        /// The Service that needs one.
        service: ObjectKey,
    },
    /// The requested node port belongs to another Service.
    #[error("Service {service}: spec.ports[{index}].nodePort: {protocol} {number} is taken by another Service")]
    PortTaken {
        /// The Service that requests it.
        service: ObjectKey,
        /// Index of the port in `spec.ports`.
        index: usize,
        /// The protocol: each has its own space of numbers.
        protocol: Protocol,
        /// The number in `nodePort`.
        number: u16,
    },
    /// All node ports are in use.
    #[error("Service {service}: no node port from 30000 to 32767 is left")]
    NoPortLeft {
        /// The Service that needs one.
        service: ObjectKey,
    },
}
