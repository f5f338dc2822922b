//! What a snapshot keeps of the PM1 registers. The timer is the guest's elapsed time and has no state.

use serde::{Deserialize, Serialize};

use super::device::{Line, Power};

/// Version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct PowerState {
    /// PM1 status.
    pub(crate) status: u16,
    /// PM1 enable.
    pub(crate) enable: u16,
    /// PM1 control, without what is fixed.
    pub(crate) control: u16,
}

impl Power {
    /// Its state.
    pub(crate) fn save(&self) -> PowerState {
        PowerState { status: self.status, enable: self.enable, control: self.control }
    }

    /// A device with this state; its interrupt line has the level that follows from it.
    pub(crate) fn restore(state: &PowerState, line: Line) -> Self {
        let mut power = Self::new(line);
        (power.status, power.enable, power.control) = (state.status, state.enable, state.control);
        power.update_line();
        power
    }
}
