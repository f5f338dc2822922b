//! Numbers of Virtual I/O Device 1.2, §5.1, and of the kernel's tun driver (linux/if_tun.h).

use crate::virtio::spec::{F_EVENT_INDEX, F_INDIRECT, F_VERSION_1};

/// §5.1.3: features.
pub(super) const F_CSUM: u64 = 1 << 0;
pub(super) const F_GUEST_CSUM: u64 = 1 << 1;
pub(super) const F_MTU: u64 = 1 << 3;
pub(super) const F_MAC: u64 = 1 << 5;
pub(super) const F_GUEST_TSO4: u64 = 1 << 7;
pub(super) const F_GUEST_TSO6: u64 = 1 << 8;
pub(super) const F_GUEST_ECN: u64 = 1 << 9;
pub(super) const F_HOST_TSO4: u64 = 1 << 11;
pub(super) const F_HOST_TSO6: u64 = 1 << 12;
pub(super) const F_HOST_ECN: u64 = 1 << 13;
pub(super) const F_MERGEABLE: u64 = 1 << 15;
pub(super) const F_STATUS: u64 = 1 << 16;
pub(super) const F_CONTROL: u64 = 1 << 17;
pub(super) const F_CONTROL_RX: u64 = 1 << 18;
pub(super) const F_CONTROL_RX_EXTRA: u64 = 1 << 20;
pub(super) const F_ANNOUNCE: u64 = 1 << 21;
pub(super) const F_MULTI_QUEUE: u64 = 1 << 22;
pub(super) const F_CONTROL_MAC: u64 = 1 << 23;

/// What vhost-net does of what a driver may take; segmentation and checksums are the tap's.
pub(super) const OF_VHOST: u64 = F_VERSION_1 | F_INDIRECT | F_EVENT_INDEX | F_MERGEABLE;

/// §5.1.4: the link is up; the driver should announce the guest.
pub(super) const LINK_UP: u16 = 1;
pub(super) const ANNOUNCE: u16 = 2;
/// §5.1.6: the header, and where its number of buffers is.
pub(super) const HEADER: usize = 12;
pub(super) const BUFFERS_AT: usize = 10;
pub(super) const QUEUE_SIZE: u16 = 256;
pub(super) const CONTROL_QUEUE_SIZE: u16 = 64;
/// Class: network controller, Ethernet.
pub(super) const CLASS: u32 = 0x02_0000;
/// A frame of segmentation offload, with its Ethernet header, rounded up.
pub(super) const MOST_BYTES: usize = HEADER + 65_536 + 18;
/// Frames in one go, so that commands to the machine do not wait for a flood.
pub(super) const MOST_FRAMES: usize = 64;

/// §5.1.6.5: classes and commands of the control queue, and its answers.
pub(super) const CONTROL_RX: u8 = 0;
pub(super) const CONTROL_MAC: u8 = 1;
pub(super) const CONTROL_MAC_TABLE: u8 = 0;
pub(super) const CONTROL_MAC_ADDRESS: u8 = 1;
pub(super) const CONTROL_ANNOUNCE: u8 = 3;
pub(super) const CONTROL_ANNOUNCE_ACK: u8 = 0;
pub(super) const CONTROL_PAIRS: u8 = 4;
pub(super) const CONTROL_PAIRS_SET: u8 = 0;
pub(super) const CONTROL_OK: u8 = 0;
pub(super) const CONTROL_ERROR: u8 = 1;

/// Flags of TUNSETOFFLOAD.
pub(super) const TUN_F_CSUM: u32 = 1;
pub(super) const TUN_F_TSO4: u32 = 2;
pub(super) const TUN_F_TSO6: u32 = 4;
pub(super) const TUN_F_TSO_ECN: u32 = 8;
