//! vhost-net by its ioctls (linux/vhost.h): the kernel serves a pair of queues between guest memory and a tap.
//!
//! Not by the crate `vhost`: it opens the device node itself, and this process is handed open descriptors and may open none.
#![expect(unsafe_code, reason = "no crate makes vhost's ioctls on a descriptor that is open already")]

use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use vm_memory::{Address as _, GuestAddress, GuestMemoryBackend as _, GuestMemoryRegion as _};
use vmm_sys_util::eventfd::EventFd;

use super::ram::GuestMemory;

const VHOST: u8 = 0xaf;
/// RAM below and above the hole.
const MOST_REGIONS: usize = 2;

/// `struct vhost_vring_state`.
#[repr(C)]
struct State {
    index: u32,
    value: u32,
}

/// `struct vhost_vring_file`; -1 is no file.
#[repr(C)]
struct RingFile {
    index: u32,
    fd: libc::c_int,
}

/// `struct vhost_vring_addr`: addresses of this process, and of the guest for the log, which is not used.
#[repr(C)]
struct Addresses {
    index: u32,
    flags: u32,
    descriptors: u64,
    used: u64,
    available: u64,
    log: u64,
}

/// `struct vhost_memory_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    guest: u64,
    size: u64,
    user: u64,
    flags: u64,
}

/// Head of `struct vhost_memory`, by whose size the ioctl is numbered.
#[repr(C)]
struct MemoryHead {
    regions: u32,
    padding: u32,
}

/// `struct vhost_memory` with room for all that a machine has.
#[repr(C)]
struct Memory {
    head: MemoryHead,
    regions: [Region; MOST_REGIONS],
}

mod calls {
    use super::{Addresses, MemoryHead, RingFile, State, VHOST};

    nix::ioctl_read!(get_features, VHOST, 0x00, u64);
    nix::ioctl_write_ptr!(set_features, VHOST, 0x00, u64);
    nix::ioctl_none!(set_owner, VHOST, 0x01);
    nix::ioctl_write_ptr!(set_memory, VHOST, 0x03, MemoryHead);
    nix::ioctl_write_ptr!(set_size, VHOST, 0x10, State);
    nix::ioctl_write_ptr!(set_addresses, VHOST, 0x11, Addresses);
    nix::ioctl_write_ptr!(set_base, VHOST, 0x12, State);
    nix::ioctl_readwrite!(get_base, VHOST, 0x12, State);
    nix::ioctl_write_ptr!(set_kick, VHOST, 0x20, RingFile);
    nix::ioctl_write_ptr!(set_call, VHOST, 0x21, RingFile);
    nix::ioctl_write_ptr!(set_backend, VHOST, 0x30, RingFile);
}

/// A queue as vhost needs it.
#[derive(Debug)]
pub(crate) struct Ring<'a> {
    /// 0 is the receive queue, 1 the transmit queue.
    pub(crate) index: u32,
    pub(crate) size: u16,
    /// The next entry of the available ring.
    pub(crate) next: u16,
    /// Guest addresses.
    pub(crate) descriptors: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
    /// Written when the guest rings.
    pub(crate) kick: &'a EventFd,
    /// Written to interrupt the guest; without it the guest polls.
    pub(crate) call: Option<&'a EventFd>,
}

/// An open /dev/vhost-net: one pair of queues. The kernel uses the guest's memory until [`Self::stop`], or until it is closed.
#[derive(Debug)]
pub(crate) struct Vhost {
    fd: OwnedFd,
    /// Keeps mapped what the kernel uses.
    memory: Option<GuestMemory>,
}

impl Vhost {
    /// Takes over an open node.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd, memory: None }
    }

    /// Takes the features that both ends have, and the guest's memory; the first call makes this process the owner.
    ///
    /// # Errors
    /// What the kernel answers.
    pub(crate) fn prepare(&mut self, features: u64, memory: &GuestMemory) -> nix::Result<()> {
        let fd = self.fd.as_raw_fd();
        // SAFETY: the descriptor is open as long as `self`, and the call has no argument.
        match unsafe { calls::set_owner(fd) } {
            // This process is the owner since an earlier driver.
            Ok(_) | Err(Errno::EBUSY) => {}
            Err(error) => return Err(error),
        }
        let mut offered = 0;
        // SAFETY: the descriptor is open, and the kernel writes the u64 that the pointer is to.
        unsafe { calls::get_features(fd, &raw mut offered) }?;
        let taken = features & offered;
        // SAFETY: the descriptor is open, and the pointer is to a u64 that lives through the call.
        unsafe { calls::set_features(fd, &raw const taken) }?;
        let mut table = Memory {
            head: MemoryHead { regions: u32::try_from(memory.num_regions()).unwrap_or(u32::MAX), padding: 0 },
            regions: [Region::default(); MOST_REGIONS],
        };
        if memory.num_regions() > MOST_REGIONS {
            return Err(Errno::E2BIG);
        }
        for (place, region) in table.regions.iter_mut().zip(memory.iter()) {
            let (guest, size, user) = (region.start_addr().raw_value(), region.len(), region.host_address());
            *place = Region { guest, size, user, flags: 0 };
        }
        // SAFETY: the descriptor is open; the pointer is to a table that has room for as many regions as its head says, checked
        // above, and each of them is mapped as long as `self.memory`, set before any queue begins, holds it.
        unsafe { calls::set_memory(fd, (&raw const table).cast::<MemoryHead>()) }?;
        self.memory = Some(memory.clone());
        Ok(())
    }

    /// Sets a queue up.
    ///
    /// # Errors
    /// What the kernel answers; EFAULT for a ring outside of the guest's memory.
    pub(crate) fn set_ring(&self, ring: &Ring<'_>) -> nix::Result<()> {
        let (fd, index) = (self.fd.as_raw_fd(), ring.index);
        let memory = self.memory.as_ref().ok_or(Errno::EINVAL)?;
        let user = |address| {
            let host = memory.get_host_address(GuestAddress(address)).map_err(|_| Errno::EFAULT)?;
            Ok::<_, Errno>(host.addr() as u64)
        };
        let addresses = Addresses {
            index,
            flags: 0,
            descriptors: user(ring.descriptors)?,
            used: user(ring.used)?,
            available: user(ring.available)?,
            log: 0,
        };
        let size = State { index, value: ring.size.into() };
        let base = State { index, value: ring.next.into() };
        let kick = RingFile { index, fd: ring.kick.as_raw_fd() };
        let call = RingFile { index, fd: ring.call.map_or(-1, EventFd::as_raw_fd) };
        // SAFETY: the descriptor is open, and each pointer is to a structure of the call's own kind that lives through it. The
        // addresses are of the guest's memory, which `self.memory` keeps mapped; the kernel checks that the rings fit into it.
        unsafe {
            calls::set_size(fd, &raw const size)?;
            calls::set_base(fd, &raw const base)?;
            calls::set_addresses(fd, &raw const addresses)?;
            calls::set_kick(fd, &raw const kick)?;
            calls::set_call(fd, &raw const call)?;
        }
        Ok(())
    }

    /// Has the kernel move frames between a queue and the tap, or end that, with all that it does in the queue.
    ///
    /// # Errors
    /// What the kernel answers.
    pub(crate) fn set_backend(&self, index: u32, tap: Option<&dyn AsFd>) -> nix::Result<()> {
        let file = RingFile { index, fd: tap.map_or(-1, |tap| tap.as_fd().as_raw_fd()) };
        // SAFETY: both descriptors are open through the call, after which the kernel has a reference of its own to the tap.
        unsafe { calls::set_backend(self.fd.as_raw_fd(), &raw const file) }.map(drop)
    }

    /// The next entry of the available ring of a queue without backend.
    ///
    /// # Errors
    /// What the kernel answers.
    pub(crate) fn base(&self, index: u32) -> nix::Result<u16> {
        let mut state = State { index, value: 0 };
        // SAFETY: the descriptor is open, and the kernel writes the structure that the pointer is to.
        unsafe { calls::get_base(self.fd.as_raw_fd(), &raw mut state) }?;
        // Of a split ring the upper half is zero.
        let [low, high, ..] = state.value.to_le_bytes();
        Ok(u16::from_le_bytes([low, high]))
    }
}
