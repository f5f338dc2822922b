//! One NIC with everything that its network is held against, and how it is said that something differs.

use hostnet::Facts;
use machine::{Machine, Nic};
use terms::IfName;
use wiring::{Interface, Owner, Request};

/// Why the machine does not start on this network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VerifyError {
    /// The machine file contradicts itself.
    #[error("nics[{index}] {nic:?}: {flaw}")]
    Machine { index: usize, nic: String, flaw: String },
    /// Something that the plugin makes is not there.
    #[error("the pod's network was not wired: NIC {nic:?}: {missing}")]
    NotWired { nic: String, missing: String },
    /// It was wired for another request.
    #[error(
        "the pod's network was wired for another request: NIC {nic:?}: {device}: wiring digest is {found}, expected {expected}"
    )]
    AnotherRequest { nic: String, device: IfName, expected: String, found: String },
    /// It is there and is something else.
    #[error("NIC {nic:?}: {device}: {property} is {found}, expected {expected}")]
    Mismatch { nic: String, device: IfName, property: &'static str, expected: String, found: String },
}

/// One NIC and all there is to know about it.
pub(super) struct Place<'a> {
    pub(super) index: usize,
    pub(super) machine: &'a Machine,
    /// Of all NICs, in the machine's order.
    pub(super) interfaces: &'a [&'a Interface],
    pub(super) interface: &'a Interface,
    pub(super) nic: &'a Nic,
    pub(super) facts: &'a Facts,
    pub(super) request: &'a Request,
    pub(super) me: Owner,
}

impl Place<'_> {
    pub(super) fn equal<T: PartialEq + ToString>(
        &self,
        device: &IfName,
        property: &'static str,
        expected: &T,
        found: &T,
    ) -> Result<(), VerifyError> {
        if expected == found {
            return Ok(());
        }
        Err(self.differs(device, property, expected.to_string(), found.to_string()))
    }

    pub(super) fn differs(
        &self,
        device: &IfName,
        property: &'static str,
        expected: String,
        found: String,
    ) -> VerifyError {
        VerifyError::Mismatch { nic: self.nic.name.clone(), device: device.clone(), property, expected, found }
    }

    pub(super) fn not_wired(&self, missing: String) -> VerifyError {
        VerifyError::NotWired { nic: self.nic.name.clone(), missing }
    }
}
