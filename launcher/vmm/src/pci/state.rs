//! What a snapshot keeps of the bus: the address register. Each function keeps its own.

use serde::{Deserialize, Serialize};

use super::Pci;

/// Version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct PciState {
    /// Address register of mechanism 1.
    pub(crate) address: u32,
}

impl Pci {
    /// Its state.
    pub(crate) fn save(&self) -> PciState {
        PciState { address: self.address() }
    }

    /// Takes over a state.
    pub(crate) fn restore(&mut self, state: &PciState) {
        self.set_address(state.address);
    }
}
