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
    /// A wished cluster address is another Service's.
    #[error("Service {service}: spec.clusterIP: {address} is taken by another Service")]
    AddressTaken {
        /// Who wishes it.
        service: ObjectKey,
        /// What is wished.
        address: IpAddr,
    },
    /// A wished cluster address is in none of the ranges.
    #[error("Service {service}: spec.clusterIP: {address} is not in {ranges}")]
    OutOfRange {
        /// Who wishes it.
        service: ObjectKey,
        /// What is wished.
        address: IpAddr,
        /// Where addresses are.
        ranges: String,
    },
    /// All cluster addresses of a family are in use.
    #[error("Service {service}: no cluster address is left")]
    NoAddressLeft {
        /// Who needs one.
        service: ObjectKey,
    },
    /// A wished host port is another Service's.
    #[error("Service {service}: spec.ports[{index}].nodePort: {protocol} {number} is taken by another Service")]
    PortTaken {
        /// Who wishes it.
        service: ObjectKey,
        /// Which of its ports.
        index: usize,
        /// What is wished, in whose space of numbers.
        protocol: Protocol,
        /// What is wished.
        number: u16,
    },
    /// All host ports are in use.
    #[error("Service {service}: no node port from 30000 to 32767 is left")]
    NoPortLeft {
        /// Who needs one.
        service: ObjectKey,
    },
}
