//! ACPI fixed hardware: the power button, S5 and the PM timer.

mod device;
mod spec;
pub(crate) mod state;
#[cfg(test)]
mod tests;

pub(crate) use device::{Power, PowerRequest};
pub(crate) use spec::{PM_TIMER, PM1_CONTROL, PM1_EVENT, S5_TYPE};
