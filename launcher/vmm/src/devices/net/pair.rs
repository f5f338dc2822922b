//! A pair of queues on a queue of the tap: frames moved here, or by vhost-net.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;

use virtio_queue::QueueT as _;

use super::filter::Filter;
use super::queue;
use super::report::Counters;
use super::spec::{HEADER, MOST_BYTES, MOST_FRAMES, OF_VHOST};
use crate::memory::GuestMemory;
use crate::sys::vhost::{Ring, Vhost};
use crate::virtio::{Rings, VirtQueue, wait};

/// One pair.
#[derive(Debug)]
pub(super) struct Pair {
    tap: File,
    vhost: Option<Vhost>,
    /// Whether vhost-net moves the frames now.
    elsewhere: bool,
    /// A frame that waits for buffers of the guest: so many bytes of `received`.
    waiting: usize,
    received: Vec<u8>,
}

impl Pair {
    /// On a non-blocking queue of a tap whose frames begin with a header of 12 bytes.
    pub(super) fn new(tap: OwnedFd, vhost: Option<OwnedFd>) -> Self {
        let received = vec![0; MOST_BYTES];
        Self { tap: tap.into(), vhost: vhost.map(Vhost::new), elsewhere: false, waiting: 0, received }
    }

    /// The tap's queue.
    pub(super) fn tap(&self) -> &File {
        &self.tap
    }

    /// Moves frames of the tap that the driver wants to the guest. Whether there is more.
    ///
    /// # Errors
    /// What is wrong with the queue.
    pub(super) fn receive(
        &mut self,
        queue: &mut VirtQueue,
        memory: &GuestMemory,
        (mergeable, filter): (bool, &Filter),
        counters: &Counters,
    ) -> Result<bool, String> {
        for _ in 0..MOST_FRAMES {
            if self.waiting == 0 {
                match self.tap.read(&mut self.received) {
                    Ok(length) if length > HEADER => self.waiting = length,
                    Ok(_) => return Ok(false),
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    // No frame, or a link that is down: the tap wakes us for the next.
                    Err(_) => return Ok(false),
                }
            }
            let frame = self.received.get_mut(..self.waiting).unwrap_or_default();
            if !frame.get(HEADER..).is_some_and(|frame| filter.passes(frame)) {
                counters.filtered();
                self.waiting = 0;
                continue;
            }
            let length = frame.len() - HEADER;
            if !queue::deliver(&mut queue.queue, memory, frame, mergeable)? {
                if !wait(&mut queue.queue, memory)? {
                    return Ok(false);
                }
                if !queue::deliver(&mut queue.queue, memory, frame, mergeable)? {
                    // There are buffers, and not enough for this frame: the next doorbell brings more.
                    return Ok(false);
                }
            }
            self.waiting = 0;
            counters.passed(length);
        }
        Ok(true)
    }

    /// Drops the frames of the tap, of a link without carrier.
    pub(super) fn discard(&mut self, counters: &Counters) {
        self.waiting = 0;
        for _ in 0..MOST_FRAMES {
            match self.tap.read(&mut self.received) {
                Ok(1..) => counters.dropped(),
                Ok(0) | Err(_) => return,
            }
        }
    }

    /// Moves frames of the guest to the tap, by way of `sent`. Whether there is more.
    ///
    /// # Errors
    /// What is wrong with the queue.
    pub(super) fn transmit(
        &mut self,
        queue: &mut VirtQueue,
        memory: &GuestMemory,
        sent: &mut [u8],
        counters: &Counters,
    ) -> Result<bool, String> {
        for _ in 0..MOST_FRAMES {
            match queue::take(&mut queue.queue, memory, sent)? {
                None if !wait(&mut queue.queue, memory)? => return Ok(false),
                None => {}
                Some(0) => counters.dropped(),
                // A frame that the tap refuses is lost, as on any wire: its header is malformed, or the link is down.
                Some(length) => match self.tap.write(sent.get(..length).unwrap_or_default()) {
                    Ok(_) => counters.passed(length - HEADER),
                    Err(_) => counters.dropped(),
                },
            }
        }
        Ok(true)
    }

    /// Has vhost-net serve the queues from `first` on, if there is one and both are set up. Whether it does.
    pub(super) fn hand_over(&mut self, features: u64, first: usize, rings: &Rings<'_>) -> bool {
        let Some(vhost) = &mut self.vhost else { return false };
        let begin = |vhost: &mut Vhost| {
            vhost.prepare(features & OF_VHOST, rings.memory)?;
            for index in 0..2 {
                vhost.set_ring(&ring(index, first + index as usize, rings).ok_or(nix::errno::Errno::EINVAL)?)?;
            }
            (0..2).try_for_each(|index| vhost.set_backend(index, Some(&self.tap)))
        };
        let begun = begin(vhost);
        self.elsewhere = begun.is_ok();
        if let Err(error) = begun {
            tracing::warn!(%error, "vhost-net does not serve a pair of queues: this process does");
            for index in 0..2 {
                // It has none where it failed.
                let _ = vhost.set_backend(index, None);
            }
        }
        self.elsewhere
    }

    /// Ends what vhost-net does; the queues are then as the guest sees them.
    pub(super) fn take_back(&mut self, queues: &mut [VirtQueue], memory: &GuestMemory) {
        if !std::mem::take(&mut self.elsewhere) {
            return;
        }
        let Some(vhost) = &self.vhost else { return };
        for (index, queue) in (0..).zip(queues) {
            let base = vhost.set_backend(index, None).and_then(|()| vhost.base(index));
            match base {
                Ok(base) => queue.queue.set_next_avail(base),
                Err(error) => tracing::warn!(%error, "vhost-net does not give a queue back"),
            }
            if let Ok(used) = queue.queue.used_idx(memory, std::sync::atomic::Ordering::Acquire) {
                queue.queue.set_next_used(used.0);
            }
        }
    }

    /// As after power-on.
    pub(super) fn reset(&mut self) {
        self.waiting = 0;
        if std::mem::take(&mut self.elsewhere)
            && let Some(vhost) = &self.vhost
        {
            for index in 0..2 {
                if let Err(error) = vhost.set_backend(index, None) {
                    tracing::warn!(%error, "vhost-net goes on with a queue of a device that was reset");
                }
            }
        }
    }
}

/// Queue `queue` of the device as vhost-net's queue `index`; nothing for one that is not set up.
fn ring<'a>(index: u32, queue: usize, rings: &'a Rings<'_>) -> Option<Ring<'a>> {
    let of = &rings.queues.get(queue).filter(|queue| queue.queue.ready())?.queue;
    Some(Ring {
        index,
        size: of.size(),
        next: of.next_avail(),
        descriptors: of.desc_table(),
        available: of.avail_ring(),
        used: of.used_ring(),
        kick: rings.doorbell(queue)?,
        call: rings.interrupt(queue),
    })
}
