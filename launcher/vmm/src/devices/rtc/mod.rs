//! The real-time clock and its battery-backed memory. It shows the host's UTC; a guest cannot set it.
//!
//! Without one Linux polls ports that answer all ones some 40 000 times at boot.

mod device;
mod spec;
pub(crate) mod state;
#[cfg(test)]
mod tests;

pub(crate) use device::Rtc;
pub(crate) use spec::CENTURY;
