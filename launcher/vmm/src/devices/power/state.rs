//! What a snapshot keeps of the power registers.

use serde::{Deserialize, Serialize};

use super::device::{Line, Power};

/// Version 2: version 1 had the PM1 registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct PowerState {
    /// Sleep control.
    pub(crate) control: u8,
    /// What the event device has to report.
    pub(crate) events: u8,
}

impl Power {
    /// Its state.
    pub(crate) fn save(&self) -> PowerState {
        PowerState { control: self.control, events: self.events }
    }

    /// A device with this state; its interrupt line has the level that follows from it.
    pub(crate) fn restore(state: &PowerState, line: Line) -> Self {
        let mut power = Self::new(line);
        (power.control, power.events) = (state.control, state.events);
        power.update_line();
        power
    }
}
