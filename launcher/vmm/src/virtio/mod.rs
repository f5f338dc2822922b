//! virtio over PCI (Virtual I/O Device 1.2, §4.1), modern only: the registers, the queues' set-up, and MSI-X.
//!
//! Flow: the guest finds the capabilities in configuration space, negotiates features and sets up queues in `common`, rings a
//! queue's doorbell, which KVM turns into an event; the event loop has the device serve the queue, and MSI-X tells the guest.
//! Guarantees: any access of any width is served; a queue that is set up wrongly makes the device ask for a reset.

mod configuration;
mod device;
mod function;
mod msix;
mod registers;
pub(crate) mod spec;
pub(crate) mod state;
#[cfg(test)]
mod tests;

pub(crate) use device::{
    Change, Device, DeviceState, Doorbells, FilterState, Interrupts, Malformed, Rings, VirtQueue, wait,
};
pub(crate) use function::{Function, Shared};
pub(crate) use msix::{Message, Vectors};
