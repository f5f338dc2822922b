//! The network device, virtio-net (Virtual I/O Device 1.2, §5.1), on a tap: served by vhost-net, or by a data path of our own.
//!
//! Flow: a frame that the tap has is written into as many of the guest's buffers as it needs; a frame of the guest is gathered and
//! written to the tap. Both carry the header of §5.1.6, which the tap understands, so checksums and segmentation pass as
//! they are. Guarantees: a frame is read from the tap only when it is kept or has buffers, so the tap's own queue is the limit.

mod control;
mod device;
mod filter;
mod pair;
mod queue;
mod report;
mod spec;
#[cfg(test)]
mod tests;

pub(crate) use device::{Net, NetSettings};
pub use report::{DataPath, NicReport, QueueCounts};
