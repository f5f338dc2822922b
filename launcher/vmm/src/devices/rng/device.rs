//! The device.

use std::fs::File;

use super::queue;
use super::spec::{CLASS, QUEUE_SIZE};
use crate::memory::GuestMemory;
use crate::virtio::spec::TYPE_ENTROPY;
use crate::virtio::{Device, Interrupts, Malformed, VirtQueue};

/// An entropy source, open.
#[derive(Debug)]
pub(crate) struct Rng {
    source: File,
}

impl Rng {
    /// A source that gives the bytes of a file: the host's random bytes.
    pub(crate) fn new(source: File) -> Self {
        Self { source }
    }
}

impl Device for Rng {
    fn name(&self) -> &'static str {
        "rng"
    }

    fn device_type(&self) -> u16 {
        TYPE_ENTROPY
    }

    fn class(&self) -> u32 {
        CLASS
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE]
    }

    fn configuration(&self) -> Vec<u8> {
        Vec::new()
    }

    fn serve(
        &mut self,
        queue: usize,
        queues: &mut [VirtQueue],
        memory: &GuestMemory,
        interrupts: &mut Interrupts<'_>,
    ) -> Result<bool, Malformed> {
        let Some(requests) = queues.get_mut(queue) else {
            return Ok(false);
        };
        let more = queue::fill(&mut self.source, &mut requests.queue, memory).map_err(|reason| Malformed {
            device: self.name(),
            queue,
            reason,
        })?;
        interrupts.used(requests, memory);
        Ok(more)
    }
}
