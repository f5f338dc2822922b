//! The first serial port, a 16550A, and the stream behind it.

mod console;
mod device;
pub(crate) mod state;
#[cfg(test)]
mod tests;

pub(crate) use console::Console;
pub(crate) use device::Serial;
