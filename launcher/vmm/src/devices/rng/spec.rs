//! Numbers of Virtual I/O Device 1.2, §5.4. The device has no features and no configuration, and so no state of its own.

/// Requests may wait so long that a deep queue is of no use.
pub(super) const QUEUE_SIZE: u16 = 64;
/// Class: unclassified device, other (PCI Code and ID Assignment 1.15, §1.1).
pub(super) const CLASS: u32 = 0x00_ff00;
/// What one request is given at most; the guest asks again.
pub(super) const MOST_BYTES: usize = 4096;
/// Requests served at once, so that commands to the machine do not wait for a guest that never stops to ask.
pub(super) const MOST_REQUESTS: usize = 64;
