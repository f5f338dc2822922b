//! The common configuration (§4.1.4.3): features, status, and the set-up of queues.
//!
//! A read copies from an image of all registers, and a write is merged into that image and then given to each register that
//! it touched: so an access may have any width and any place. Drivers exist that read the 32-bit registers by halves.

use virtio_queue::QueueT as _;

use super::device::{Device, VirtQueue};
use super::msix::Msix;
use super::spec::{
    COMMON, COMMON_SIZE, DRIVER_OK, F_EVENT_INDEX, F_INDIRECT, F_VERSION_1, FEATURES_OK, NEEDS_RESET, NO_VECTOR,
    Register,
};
use crate::memory::GuestMemory;

/// What a write asks of the transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// The device is reset.
    Reset,
    /// Its driver has set everything up.
    Start,
}

/// The registers. Those of a queue are the queue's own.
#[derive(Debug, Default)]
pub(super) struct Common {
    pub(super) device_feature_select: u32,
    pub(super) driver_feature_select: u32,
    pub(super) driver_features: u64,
    pub(super) config_vector: u16,
    pub(super) status: u8,
    pub(super) queue_select: u16,
    /// Changes with the device's configuration.
    pub(super) generation: u8,
}

/// What the registers speak of.
pub(super) struct Context<'a> {
    pub(super) device: &'a dyn Device,
    pub(super) queues: &'a mut [VirtQueue],
    pub(super) msix: &'a Msix,
    pub(super) memory: &'a GuestMemory,
}

impl Common {
    /// After a reset.
    pub(super) fn new() -> Self {
        Self { config_vector: NO_VECTOR, ..Self::default() }
    }

    /// All that is offered.
    pub(super) fn offered(device: &dyn Device) -> u64 {
        device.features() | F_VERSION_1 | F_INDIRECT | F_EVENT_INDEX
    }

    /// Reads from an offset. `data` is all ones already.
    pub(super) fn read(&self, offset: u64, data: &mut [u8], context: &Context<'_>) {
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        data.iter_mut().zip(self.image(context).into_iter().skip(skipped)).for_each(|(to, from)| *to = from);
    }

    /// Writes to an offset.
    pub(super) fn write(&mut self, offset: u64, data: &[u8], context: &mut Context<'_>) -> Option<Effect> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut image = self.image(context);
        image.iter_mut().skip(offset).zip(data).for_each(|(to, from)| *to = *from);
        let end = offset.saturating_add(data.len());
        let touched = COMMON.iter().filter(|(start, size, _)| *start < end && offset < start + size);
        let mut effect = None;
        for (start, size, register) in touched {
            let bytes = image.iter().skip(*start).take(*size);
            let value = bytes.rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
            effect = effect.or(self.set(*register, value, context));
        }
        effect
    }

    fn image(&self, context: &Context<'_>) -> [u8; COMMON_SIZE] {
        let mut image = [0; COMMON_SIZE];
        for (start, size, register) in COMMON {
            let bytes = self.value(register, context).to_le_bytes();
            image.iter_mut().skip(start).zip(bytes.iter().take(size)).for_each(|(to, from)| *to = *from);
        }
        image
    }

    fn value(&self, register: Register, context: &Context<'_>) -> u64 {
        let queue = context.queues.get(usize::from(self.queue_select));
        let of_queue = |value: fn(&VirtQueue) -> u64| queue.map_or(0, value);
        match register {
            Register::DeviceFeatureSelect => self.device_feature_select.into(),
            Register::DeviceFeature => half(Self::offered(context.device), self.device_feature_select),
            Register::DriverFeatureSelect => self.driver_feature_select.into(),
            Register::DriverFeature => half(self.driver_features, self.driver_feature_select),
            Register::ConfigVector => self.config_vector.into(),
            Register::Queues => context.queues.len() as u64,
            Register::Status => self.status.into(),
            Register::Generation => self.generation.into(),
            Register::QueueSelect => self.queue_select.into(),
            // A queue that is not there has size 0.
            Register::QueueSize => of_queue(|queue| queue.queue.size().into()),
            Register::QueueVector => queue.map_or(NO_VECTOR, |queue| queue.vector).into(),
            Register::QueueEnable => of_queue(|queue| queue.queue.ready().into()),
            Register::QueueNotifyOffset => queue.map_or(0, |_| self.queue_select).into(),
            Register::QueueDescriptors => of_queue(|queue| queue.queue.desc_table()),
            Register::QueueDriver => of_queue(|queue| queue.queue.avail_ring()),
            Register::QueueDevice => of_queue(|queue| queue.queue.used_ring()),
        }
    }

    fn set(&mut self, register: Register, value: u64, context: &mut Context<'_>) -> Option<Effect> {
        let [b0, b1, b2, b3, b4, b5, b6, b7] = value.to_le_bytes();
        let (byte, word) = (b0, u16::from_le_bytes([b0, b1]));
        let low = u32::from_le_bytes([b0, b1, b2, b3]);
        let high = u32::from_le_bytes([b4, b5, b6, b7]);
        match register {
            Register::DeviceFeatureSelect => self.device_feature_select = low,
            Register::DriverFeatureSelect => self.driver_feature_select = low,
            Register::DriverFeature if self.status & FEATURES_OK == 0 => self.set_features(low),
            Register::ConfigVector => self.config_vector = vector(word, context.msix),
            Register::Status => return self.set_status(byte, context),
            Register::QueueSelect => self.queue_select = word,
            _ => self.set_queue(register, (word, low, high), context),
        }
        None
    }

    fn set_features(&mut self, half: u32) {
        match self.driver_feature_select {
            0 => self.driver_features = self.driver_features & !0xffff_ffff | u64::from(half),
            1 => self.driver_features = self.driver_features & 0xffff_ffff | u64::from(half) << 32,
            _ => {}
        }
    }

    fn set_status(&mut self, status: u8, context: &mut Context<'_>) -> Option<Effect> {
        if status == 0 {
            return Some(Effect::Reset);
        }
        let mut status = status | self.status & NEEDS_RESET;
        let taken = self.driver_features;
        let unknown = taken & !Self::offered(context.device) != 0 || taken & F_VERSION_1 == 0;
        if unknown {
            // §3.1.1: the driver reads the bit back and sees that its choice was not taken.
            status &= !(FEATURES_OK | DRIVER_OK);
        }
        let starts = status & DRIVER_OK != 0 && self.status & DRIVER_OK == 0;
        self.status = status;
        starts.then_some(Effect::Start)
    }

    /// The registers of the chosen queue; fixed once the driver runs.
    fn set_queue(&mut self, register: Register, (word, low, high): (u16, u32, u32), context: &mut Context<'_>) {
        let vector = vector(word, context.msix);
        let event_index = self.driver_features & F_EVENT_INDEX != 0;
        let Some(queue) = context.queues.get_mut(usize::from(self.queue_select)) else {
            return;
        };
        let fixed = queue.queue.ready();
        match register {
            Register::QueueVector => queue.vector = vector,
            // §4.1.4.3.2: what is no power of two, or too large, is not taken.
            Register::QueueSize if !fixed && word.is_power_of_two() && word <= queue.most => {
                queue.queue.set_size(word);
            }
            Register::QueueDescriptors if !fixed => queue.queue.set_desc_table_address(Some(low), Some(high)),
            Register::QueueDriver if !fixed => queue.queue.set_avail_ring_address(Some(low), Some(high)),
            Register::QueueDevice if !fixed => queue.queue.set_used_ring_address(Some(low), Some(high)),
            Register::QueueEnable if !fixed && word == 1 => {
                queue.queue.set_event_idx(event_index);
                queue.queue.set_ready(true);
                if !queue.queue.is_valid(context.memory) {
                    queue.queue.set_ready(false);
                    self.status |= NEEDS_RESET;
                }
            }
            _ => {}
        }
    }
}

/// A vector that is none reads back as such (§4.1.5.1.2.1).
fn vector(word: u16, msix: &Msix) -> u16 {
    if msix.has(word) { word } else { NO_VECTOR }
}

fn half(features: u64, select: u32) -> u64 {
    match select {
        0 => features & 0xffff_ffff,
        1 => features >> 32,
        _ => 0,
    }
}
