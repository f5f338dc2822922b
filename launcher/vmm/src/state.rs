//! What a snapshot keeps of a machine's devices, as one versioned document.
//!
//! A field that is added has a default, so that a document of an older release is read; one whose meaning changes needs a
//! new version. Golden files in `tests/golden/state` hold the shape of each.

use serde::{Deserialize, Serialize};

use crate::bus::Bus;
use crate::devices::{PowerState, RtcState, SerialState};
use crate::functions::Attached;
use crate::pci::state::PciState;
use crate::sync::lock;
use crate::virtio::state::FunctionState;

/// The version that this release writes.
const VERSION: u32 = 1;

/// State of all devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DevicesState {
    version: u32,
    pub(crate) serial: SerialState,
    pub(crate) rtc: RtcState,
    pub(crate) power: PowerState,
    pub(crate) pci: PciState,
    /// Virtio functions in the order of their slots.
    #[serde(default)]
    pub(crate) functions: Vec<FunctionState>,
}

/// A document of a version that this release does not read.
#[derive(Debug, thiserror::Error)]
#[error("the devices' state has version {0}: expected {VERSION}")]
pub struct UnknownVersion(u32);

impl DevicesState {
    /// The state of a machine whose processors are stopped.
    pub(crate) fn of(bus: &Bus, functions: &[Attached]) -> Self {
        Self {
            version: VERSION,
            serial: lock(&bus.serial).save(),
            rtc: lock(&bus.rtc).save(),
            power: lock(&bus.power).save(),
            pci: lock(&bus.pci).save(),
            functions: functions.iter().map(|attached| lock(&attached.function).save()).collect(),
        }
    }

    /// Itself, if this release reads its version.
    ///
    /// # Errors
    /// For any other version.
    pub(crate) fn checked(self) -> Result<Self, UnknownVersion> {
        if self.version == VERSION { Ok(self) } else { Err(UnknownVersion(self.version)) }
    }
}
