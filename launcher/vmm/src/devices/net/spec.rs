//! Numbers of Virtual I/O Device 1.2, §5.1, and of the kernel's tun driver (linux/if_tun.h).

/// §5.1.3: features.
pub(super) const F_CSUM: u64 = 1 << 0;
pub(super) const F_GUEST_CSUM: u64 = 1 << 1;
pub(super) const F_MTU: u64 = 1 << 3;
pub(super) const F_MAC: u64 = 1 << 5;
pub(super) const F_GUEST_TSO4: u64 = 1 << 7;
pub(super) const F_GUEST_TSO6: u64 = 1 << 8;
pub(super) const F_HOST_TSO4: u64 = 1 << 11;
pub(super) const F_HOST_TSO6: u64 = 1 << 12;
pub(super) const F_MERGEABLE: u64 = 1 << 15;
pub(super) const F_STATUS: u64 = 1 << 16;

/// §5.1.4: the link is up.
pub(super) const LINK_UP: u16 = 1;
/// §5.1.6: the header, and where its number of buffers is.
pub(super) const HEADER: usize = 12;
pub(super) const BUFFERS_AT: usize = 10;
/// §5.1.2: the first pair of queues.
pub(super) const RECEIVE: usize = 0;
pub(super) const TRANSMIT: usize = 1;
pub(super) const QUEUE_SIZE: u16 = 256;
/// Class: network controller, Ethernet.
pub(super) const CLASS: u32 = 0x02_0000;
/// A frame of segmentation offload, with its Ethernet header, rounded up.
pub(super) const MOST_BYTES: usize = HEADER + 65_536 + 18;
/// Frames in one go, so that commands to the machine do not wait for a flood.
pub(super) const MOST_FRAMES: usize = 64;

/// Flags of TUNSETOFFLOAD.
pub(super) const TUN_F_CSUM: u32 = 1;
pub(super) const TUN_F_TSO4: u32 = 2;
pub(super) const TUN_F_TSO6: u32 = 4;
