//! Taps: attaching a descriptor to one that exists, and which ioctls make one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};
use terms::IfName;

use crate::sys::{self, TunValue};

/// The device node that tun descriptors come from.
pub const TUN_NODE: &str = "/dev/net/tun";

/// Bytes of the header of virtio 1.0 with merged buffers (virtio 1.2 §5.1.6).
pub const VNET_HEADER_BYTES: u8 = 12;

/// One ioctl on a tun descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TunCall {
    /// TUNSETIFF for a tap with virtio-net header and without packet information.
    Interface {
        /// Name of the device; it is made if it does not exist, which needs CAP_NET_ADMIN.
        name: IfName,
        /// Whether it takes several descriptors.
        multi_queue: bool,
        /// Whether it must not exist.
        exclusive: bool,
    },
    /// TUNSETOWNER: the numeric user that may attach.
    Owner(u32),
    /// TUNSETGROUP: the numeric group that may attach.
    Group(u32),
    /// TUNSETPERSIST: whether the device outlives its last descriptor.
    Persist(bool),
    /// TUNSETVNETHDRSZ: bytes of the virtio-net header before each frame.
    HeaderSize(u8),
    /// TUNSETOFFLOAD: which frames the reader takes unfinished.
    Offload(Offload),
}

/// What the reader of a tap takes unsegmented or unsummed (TUN_F_* of `linux/if_tun.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Offload {
    /// Checksums still to be filled in.
    pub checksum: bool,
    /// TCP over IPv4 beyond the MTU.
    pub tso4: bool,
    /// TCP over IPv6 beyond the MTU.
    pub tso6: bool,
    /// TCP with ECN bits beyond the MTU.
    pub tso_ecn: bool,
    /// UDP beyond the MTU (kernel 6.2 or newer).
    pub uso: bool,
}

impl Offload {
    fn bits(self) -> u32 {
        // TUN_F_CSUM, TSO4, TSO6, TSO_ECN of `linux/if_tun.h`; USO is TUN_F_USO4 and TUN_F_USO6, which go together.
        let pairs =
            [(self.checksum, 0x01), (self.tso4, 0x02), (self.tso6, 0x04), (self.tso_ecn, 0x08), (self.uso, 0x60)];
        pairs.into_iter().filter(|(on, _)| *on).map(|(_, bit)| bit).sum()
    }
}

impl TunCall {
    /// Performs the call.
    ///
    /// # Errors
    /// The kernel's.
    pub fn perform(&self, tun: BorrowedFd<'_>) -> io::Result<()> {
        match self {
            Self::Interface { name, multi_queue, exclusive } => {
                let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
                if *multi_queue {
                    flags |= libc::IFF_MULTI_QUEUE;
                }
                if *exclusive {
                    flags |= libc::IFF_TUN_EXCL;
                }
                // The field is a signed short and IFF_TUN_EXCL its highest bit: the bits count, not the number.
                let [low, high, ..] = flags.to_le_bytes();
                sys::tun_set_interface(tun, name, i16::from_le_bytes([low, high]))
            }
            Self::Owner(uid) => sys::tun_set_value(tun, TunValue::Owner, *uid),
            Self::Group(gid) => sys::tun_set_value(tun, TunValue::Group, *gid),
            Self::Persist(on) => sys::tun_set_value(tun, TunValue::Persist, u32::from(*on)),
            Self::HeaderSize(bytes) => sys::tun_set_header_size(tun, i32::from(*bytes)),
            Self::Offload(offload) => sys::tun_set_value(tun, TunValue::Offload, offload.bits()),
        }
    }
}

/// Why a tap could not be attached to.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum TapError {
    /// The node cannot be opened.
    #[error("cannot open {TUN_NODE}: {}", node_hint(.0))]
    Node(#[source] io::Error),
    /// The kernel refused to attach.
    #[error("cannot attach to tap {name}: {}", attach_hint(.source))]
    Attach {
        name: IfName,
        #[source]
        source: io::Error,
    },
    /// The kernel has another header than it was told.
    #[error(
        "tap {name}: the virtio-net header has {found} bytes, expected {VNET_HEADER_BYTES}: another process has set it"
    )]
    HeaderSize {
        name: IfName,
        /// Bytes of the header (TUNGETVNETHDRSZ).
        found: i32,
    },
    /// The kernel refused a setting.
    #[error("cannot set {what} of a tap")]
    Set {
        what: &'static str,
        #[source]
        source: io::Error,
    },
}

pub(crate) fn node_hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::ENOENT) => "the node is missing; load the tun module, or give the container the device",
        Some(libc::ENXIO | libc::ENODEV) => "the kernel has no tun driver; load the tun module",
        Some(libc::EACCES | libc::EPERM) => "this user may not open it; pass an open descriptor or the device",
        _ => "it cannot be used",
    }
}

fn attach_hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM) => "it is not there, or it belongs to another user or group",
        Some(libc::EBUSY) => "another process is attached to it",
        Some(libc::EINVAL) => "it takes one descriptor where several were asked for, or the reverse, or it is no tap",
        Some(libc::E2BIG) => "it has as many descriptors as it takes",
        _ => "the kernel refused",
    }
}

/// Opens an unattached tun descriptor. The taps it can attach to are those of the namespace this thread is in now.
///
/// # Errors
/// When the node is missing, or this user may not open it.
pub fn open() -> Result<OwnedFd, TapError> {
    open_node().map(OwnedFd::from).map_err(TapError::Node)
}

pub(crate) fn open_node() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(TUN_NODE)
}

/// Attaches an unattached descriptor to a tap: frames with a virtio-net header of 12 bytes, without packet information.
///
/// Attaching rewrites those two properties of a persistent tap, so a caller that needs them reads the link first. A tap of that
/// name that does not exist is made if this process has CAP_NET_ADMIN; look first.
///
/// # Errors
/// When the tap belongs to another user, is held by another process, or differs in `multi_queue`.
pub fn attach(tun: &impl AsFd, name: &IfName, multi_queue: bool) -> Result<(), TapError> {
    TunCall::Interface { name: name.clone(), multi_queue, exclusive: false }
        .perform(tun.as_fd())
        .map_err(|source| TapError::Attach { name: name.clone(), source })?;
    TunCall::HeaderSize(VNET_HEADER_BYTES)
        .perform(tun.as_fd())
        .map_err(|source| TapError::Set { what: "the virtio-net header's size", source })?;
    // It is the device's, not the descriptor's: with another size every frame would be cut at the wrong place.
    let found = sys::tun_header_size(tun.as_fd())
        .map_err(|source| TapError::Set { what: "the virtio-net header's size", source })?;
    expect_header(name, found)
}

fn expect_header(name: &IfName, found: i32) -> Result<(), TapError> {
    if found == i32::from(VNET_HEADER_BYTES) { Ok(()) } else { Err(TapError::HeaderSize { name: name.clone(), found }) }
}

/// Says what the descriptor's reader takes unsegmented and unsummed.
///
/// # Errors
/// When the kernel does not know an offload, or `tso*` is asked for without `checksum`.
pub fn set_offload(tun: &impl AsFd, offload: Offload) -> Result<(), TapError> {
    TunCall::Offload(offload).perform(tun.as_fd()).map_err(|source| TapError::Set { what: "offloads", source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offload_bits_are_those_of_the_header() {
        assert_eq!(Offload::default().bits(), 0);
        let all = Offload { checksum: true, tso4: true, tso6: true, tso_ecn: true, uso: true };
        assert_eq!(all.bits(), 0x6f);
    }

    // spec: ISO-8
    #[test]
    fn a_header_of_another_size_is_refused_by_the_taps_name() {
        let name = "tap0".parse().unwrap();
        assert!(expect_header(&name, 12).is_ok());
        let error = expect_header(&name, 10).unwrap_err().to_string();
        assert!(error.starts_with("tap tap0: the virtio-net header has 10 bytes, expected 12"), "{error}");
    }

    #[test]
    fn what_is_no_tun_descriptor_cannot_be_attached() {
        let null = File::open("/dev/null").unwrap();
        let error = attach(&null, &"tap0".parse().unwrap(), false).unwrap_err();
        assert!(error.to_string().starts_with("cannot attach to tap tap0"), "{error}");
    }
}
