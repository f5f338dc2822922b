//! Hardware-reduced ACPI: S5, and the power button behind the event device.

mod device;
mod spec;
pub(crate) mod state;
#[cfg(test)]
mod tests;

pub(crate) use device::{Power, PowerRequest};
pub(crate) use spec::{EVENTS, POWER_BUTTON, S5_TYPE, SLEEP_CONTROL, SLEEP_STATUS};
