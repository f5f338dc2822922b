//! Takes the taps: descriptors handed down, or opened here, attached only to what was verified before.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use hostnet::tap::{self, TapError};
use terms::IfName;

use super::WiredNic;

/// Unattached tun descriptors that a more privileged process opened in this namespace, in order.
///
/// For each NIC one per queue and one for its service tap, whether it has one or not. Without any, the node is opened.
#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    tun: VecDeque<OwnedFd>,
    are_given: bool,
}

/// The attached descriptors of one NIC.
#[derive(Debug)]
pub(crate) struct Attached {
    /// One for each queue pair.
    pub(crate) queues: Vec<OwnedFd>,
    /// Of the service tap; `None` for a NIC without one.
    pub(crate) service: Option<OwnedFd>,
}

/// Why a tap could not be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    /// The list is too short.
    #[error(
        "--tun-fds: no descriptor is left for {0}: one per queue and one for the service tap are needed for each NIC"
    )]
    TooFew(IfName),
    /// The kernel refused to attach to a tap.
    #[error(transparent)]
    Tap(#[from] TapError),
}

impl Descriptors {
    /// Descriptors in the order of NICs; an empty list means that the node is to be opened.
    pub(crate) fn given(descriptors: Vec<OwnedFd>) -> Self {
        Self { are_given: !descriptors.is_empty(), tun: descriptors.into() }
    }

    fn next(&mut self, tap: &IfName) -> Result<OwnedFd, AttachError> {
        if self.are_given {
            return self.tun.pop_front().ok_or_else(|| AttachError::TooFew(tap.clone()));
        }
        Ok(tap::open()?)
    }
}

/// Attaches all queues of a NIC's tap, and its service tap.
///
/// # Errors
/// When descriptors run out or the kernel refuses one.
pub(crate) fn attach(nic: &WiredNic, descriptors: &mut Descriptors) -> Result<Attached, AttachError> {
    let mut take = |name: &IfName, is_multi_queue: bool| {
        let descriptor = descriptors.next(name)?;
        tap::attach(&descriptor, name, is_multi_queue)?;
        Ok::<_, AttachError>(descriptor)
    };
    let queues = (0..nic.queues).map(|_| take(&nic.tap, nic.queues > 1)).collect::<Result<_, _>>()?;
    let service = nic.service.as_ref().map(|service| take(&service.tap, false)).transpose()?;
    if nic.service.is_none() {
        // The starter opened one for each NIC; it could not know that this one has no service tap.
        drop(descriptors.tun.pop_front());
    }
    Ok(Attached { queues, service })
}
