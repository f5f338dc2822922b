//! The device.

use super::queue::{self, Content};
use super::spec::{ACTUAL_AT, CLASS, F_DEFLATE_ON_OOM, F_REPORTING, INFLATE, PAGE, QUEUE_SIZES, REPORTING};
use crate::memory::GuestMemory;
use crate::virtio::spec::TYPE_BALLOON;
use crate::virtio::{Change, Device, DeviceState, Interrupts, Malformed, VirtQueue};

/// A balloon.
#[derive(Debug, Default)]
pub(crate) struct Balloon {
    /// Pages that the host asks for.
    asked: u32,
    /// Pages that the guest says are in it.
    actual: u32,
}

impl Device for Balloon {
    fn name(&self) -> &'static str {
        "balloon"
    }

    fn device_type(&self) -> u16 {
        TYPE_BALLOON
    }

    fn class(&self) -> u32 {
        CLASS
    }

    fn features(&self) -> u64 {
        F_DEFLATE_ON_OOM | F_REPORTING
    }

    fn queue_sizes(&self) -> Vec<u16> {
        QUEUE_SIZES.to_vec()
    }

    fn configuration(&self) -> Vec<u8> {
        [self.asked.to_le_bytes(), self.actual.to_le_bytes()].concat()
    }

    fn write_configuration(&mut self, offset: u64, data: &[u8]) {
        if let (ACTUAL_AT, &[a, b, c, d]) = (offset, data) {
            self.actual = u32::from_le_bytes([a, b, c, d]);
        }
    }

    fn reset(&mut self) {
        self.actual = 0;
    }

    fn on_change(&mut self, change: Change) -> bool {
        let Change::Balloon { bytes } = change else { return false };
        let asked = u32::try_from(bytes / PAGE).unwrap_or(u32::MAX);
        std::mem::replace(&mut self.asked, asked) != asked
    }

    fn save(&self) -> DeviceState {
        DeviceState::Balloon { asked: self.asked, actual: self.actual }
    }

    fn restore(&mut self, state: &DeviceState) {
        if let DeviceState::Balloon { asked, actual } = state {
            (self.asked, self.actual) = (*asked, *actual);
        }
    }

    fn serve(
        &mut self,
        queue: usize,
        queues: &mut [VirtQueue],
        memory: &GuestMemory,
        interrupts: &mut Interrupts<'_>,
    ) -> Result<bool, Malformed> {
        let Some(requests) = queues.get_mut(queue) else { return Ok(false) };
        let content = match queue {
            INFLATE => Content::Pages,
            REPORTING => Content::Buffers,
            _ => Content::Nothing,
        };
        let more = queue::serve(&mut requests.queue, memory, content);
        let more = more.map_err(|reason| Malformed { device: self.name(), queue, reason })?;
        interrupts.used(requests, memory);
        Ok(more)
    }
}
