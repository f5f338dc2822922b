//! The CNI specification's documents: versions, results, errors (github.com/containernetworking/cni, SPEC.md 1.1.0).

mod error;
mod result;
mod version;

pub use error::{Code, Error};
pub use result::{CniResult, Dns, Interface, IpConfig, ResultError, Route};
pub use version::{UnknownVersion, Version};
