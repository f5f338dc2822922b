//! Numbers of Virtual I/O Device 1.2, §5.5.

/// §5.5.3: features.
pub(super) const F_DEFLATE_ON_OOM: u64 = 1 << 2;
pub(super) const F_REPORTING: u64 = 1 << 5;

/// §5.5.2: queues. Those of features that are not taken do not count: reporting follows deflating.
pub(super) const INFLATE: usize = 0;
pub(super) const REPORTING: usize = 2;
pub(super) const QUEUE_SIZES: [u16; 3] = [128; 3];
/// §5.5.6: the balloon's pages have 4096 bytes, whatever the guest's have.
pub(super) const PAGE: u64 = 4096;
/// §5.5.4: `num_pages`, which the host writes, and `actual`, which the guest writes.
pub(super) const ACTUAL_AT: u64 = 4;
/// Class: unclassified device, other (PCI Code and ID Assignment 1.15, §1.1).
pub(super) const CLASS: u32 = 0x00_ff00;
/// Numbers of pages taken of one request; Linux sends 256.
pub(super) const MOST_PAGES: usize = 1024;
/// Requests served at once, so that commands to the machine do not wait for a guest that never stops.
pub(super) const MOST_REQUESTS: usize = 64;
