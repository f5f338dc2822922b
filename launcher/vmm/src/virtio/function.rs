//! The PCI function of a virtio device: which part of it an access reaches, and when queues are served.

use std::sync::{Arc, Mutex};

use super::configuration::{Configuration, Written};
use super::device::{Change, Device, Doorbells, Interrupts, Rings, VirtQueue};
use super::msix::{Msix, Vectors};
use super::registers::{Common, Context, Effect};
use super::spec::{
    BAR_SIZE, COMMON_AT, DEVICE_AT, DRIVER_OK, ISR_AT, MSIX_PENDING_AT, MSIX_TABLE_AT, NEEDS_RESET, NOTIFY_AT,
    NOTIFY_MULTIPLIER, PART_SIZE,
};
use crate::memory::GuestMemory;
use crate::sync::lock;

/// A virtio device on PCI.
#[derive(Debug)]
pub(crate) struct Function {
    pub(super) configuration: Configuration,
    pub(super) common: Common,
    pub(super) queues: Vec<VirtQueue>,
    pub(super) msix: Msix,
    pub(super) isr: u8,
    /// So many of the first queues are served elsewhere.
    elsewhere: usize,
    pub(super) device: Box<dyn Device>,
    doorbells: Box<dyn Doorbells>,
    memory: GuestMemory,
}

/// A function that the bus and the event loop share.
pub(crate) type Shared = Arc<Mutex<Function>>;

impl Function {
    /// After a reset, its registers at `bar` and its doorbells at `port`, too.
    ///
    /// # Errors
    /// When the device asks for a queue of no valid size.
    pub(crate) fn new(
        device: Box<dyn Device>,
        memory: GuestMemory,
        vectors: Box<dyn Vectors>,
        doorbells: Box<dyn Doorbells>,
        bar: u32,
        port: u16,
    ) -> Result<Self, virtio_queue::Error> {
        let queues = queues(&*device)?;
        let msix = Msix::new(queues.len() + 1, vectors);
        let (vectors, has_device) = (msix.size_field(), !device.configuration().is_empty());
        let configuration = Configuration::new(device.device_type(), device.class(), vectors, (bar, port), has_device);
        doorbells.listen(0);
        Ok(Self { configuration, common: Common::new(), queues, msix, isr: 0, elsewhere: 0, device, doorbells, memory })
    }

    /// Serves a queue whose doorbell rang. Whether it must be served again.
    pub(crate) fn serve(&mut self, queue: usize) -> bool {
        if !self.runs()
            || queue < self.elsewhere
            || !self.queues.get(queue).is_some_and(|queue| virtio_queue::QueueT::ready(&queue.queue))
        {
            return false;
        }
        let mut interrupts = Interrupts { msix: &mut self.msix, isr: &mut self.isr };
        self.device.serve(queue, &mut self.queues, &self.memory, &mut interrupts).unwrap_or_else(|error| {
            tracing::warn!(%error, "the device stops until the guest resets it");
            self.need_reset();
            false
        })
    }

    /// Takes over PCI registers; from then on doorbells and messages go where these say.
    pub(super) fn restore_configuration(&mut self, registers: &[u32], control: u16) {
        self.configuration.restore(registers);
        self.place_doorbells();
        self.set_control(control);
    }

    fn place_doorbells(&mut self) {
        let memory = self.configuration.window().map(|bar| bar + u64::from(NOTIFY_AT));
        self.doorbells.place(memory, self.configuration.ports());
    }

    fn runs(&self) -> bool {
        self.common.status & (DRIVER_OK | NEEDS_RESET) == DRIVER_OK
    }

    /// Interrupts for each queue: of a restored function an interrupt may have been on its way, and in no part's state. A driver
    /// takes one without cause.
    pub(crate) fn interrupt(&mut self) {
        for queue in self.queues.iter().filter(|queue| virtio_queue::QueueT::ready(&queue.queue)) {
            self.msix.trigger(queue.vector);
        }
    }

    /// Has the device of a restored or paused function go on.
    pub(crate) fn resume(&mut self) {
        if self.runs() {
            self.start();
        }
    }

    /// Stops the device while the machine is paused; queues are then as the guest sees them.
    pub(crate) fn pause(&mut self) {
        let (device, mut rings) = self.rings();
        device.stop(&mut rings);
        self.serve_here();
    }

    /// Something of the host's changed.
    pub(crate) fn on_change(&mut self, change: Change) {
        if self.device.on_change(change) {
            if self.runs() {
                self.pause();
                self.start();
                self.doorbells.ring();
            }
            // §4.1.4.3.1: by another generation a driver sees that it read old and new.
            self.common.generation = self.common.generation.wrapping_add(1);
            self.isr |= 2;
            self.msix.trigger(self.common.config_vector);
        }
    }

    fn rings(&mut self) -> (&mut dyn Device, Rings<'_>) {
        let Self { device, queues, memory, msix, doorbells, .. } = self;
        (&mut **device, Rings { queues, memory, msix, doorbells: &**doorbells })
    }

    fn start(&mut self) {
        let features = self.common.driver_features;
        let (device, mut rings) = self.rings();
        self.elsewhere = device.start(features, &mut rings);
        self.doorbells.listen(self.elsewhere);
    }

    fn serve_here(&mut self) {
        if std::mem::take(&mut self.elsewhere) > 0 {
            self.doorbells.listen(0);
        }
    }

    fn set_control(&mut self, control: u16) {
        self.msix.set_control(control);
        self.configuration.set_control(self.msix.control | self.msix.size_field());
    }

    /// §2.1.1: the device is in a state that it does not leave by itself, and the driver is told.
    fn need_reset(&mut self) {
        self.device.reset();
        self.serve_here();
        self.common.status |= NEEDS_RESET;
        self.isr |= 2;
        self.msix.trigger(self.common.config_vector);
    }

    fn reset(&mut self) {
        self.device.reset();
        self.serve_here();
        self.common = Common { generation: self.common.generation, ..Common::new() };
        self.isr = 0;
        for queue in &mut self.queues {
            virtio_queue::QueueT::reset(&mut queue.queue);
            queue.vector = super::spec::NO_VECTOR;
        }
    }

    /// Reads from BAR 0. `data` is all ones already.
    fn read_bar(&mut self, offset: u64, data: &mut [u8]) {
        let (part, offset) = split(offset);
        match part {
            COMMON_AT => {
                let context =
                    Context { device: &*self.device, queues: &mut self.queues, msix: &self.msix, memory: &self.memory };
                self.common.read(offset, data, &context);
            }
            ISR_AT => {
                // §4.1.4.5.1: a read clears it.
                data.fill(0);
                if let (Some(first), 0) = (data.first_mut(), offset) {
                    *first = std::mem::take(&mut self.isr);
                }
            }
            DEVICE_AT => {
                let bytes = self.device.configuration();
                let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
                data.iter_mut().zip(bytes.iter().skip(skipped)).for_each(|(to, from)| *to = *from);
            }
            MSIX_TABLE_AT => self.msix.read_table(offset, data),
            MSIX_PENDING_AT => self.msix.read_pending(offset, data),
            _ => {}
        }
    }

    fn write_bar(&mut self, offset: u64, data: &[u8]) {
        let (part, offset) = split(offset);
        match part {
            COMMON_AT => {
                let mut context =
                    Context { device: &*self.device, queues: &mut self.queues, msix: &self.msix, memory: &self.memory };
                match self.common.write(offset, data, &mut context) {
                    Some(Effect::Reset) => self.reset(),
                    // What the guest put into queues before may wait for no doorbell.
                    Some(Effect::Start) => {
                        self.start();
                        self.doorbells.ring();
                    }
                    None => {}
                }
            }
            // KVM turns doorbells into events; one comes here by the window of configuration space only.
            NOTIFY_AT => {
                self.serve(usize::try_from(offset / u64::from(NOTIFY_MULTIPLIER)).unwrap_or(usize::MAX));
            }
            DEVICE_AT => self.device.write_configuration(offset, data),
            MSIX_TABLE_AT => self.msix.write_table(offset, data),
            _ => {}
        }
    }
}

fn queues(device: &dyn Device) -> Result<Vec<VirtQueue>, virtio_queue::Error> {
    device.queue_sizes().into_iter().map(VirtQueue::new).collect()
}

/// The part of BAR 0 that an offset is in, and the offset there.
fn split(offset: u64) -> (u32, u64) {
    let within = offset % u64::from(PART_SIZE);
    (u32::try_from(offset - within).unwrap_or(u32::MAX), within)
}

impl crate::pci::Function for Shared {
    fn read(&mut self, register: u16) -> u32 {
        let mut this = lock(self);
        if !Configuration::is_window_data(register) {
            return this.configuration.read(register);
        }
        let Some((offset, length)) = this.configuration.shown() else {
            return u32::MAX;
        };
        let mut bytes = [0xff; 4];
        if let Some(data) = bytes.get_mut(..length) {
            this.read_bar(offset, data);
        }
        u32::from_le_bytes(bytes)
    }

    fn write(&mut self, register: u16, value: u32, mask: u32) {
        let mut this = lock(self);
        match this.configuration.write(register, value, mask) {
            Written::Plain => {}
            Written::Window => this.place_doorbells(),
            Written::Control(control) => {
                this.set_control(control);
            }
            Written::Data => {
                if let Some((offset, length)) = this.configuration.shown() {
                    let bytes = value.to_le_bytes();
                    this.write_bar(offset, bytes.get(..length).unwrap_or_default());
                }
            }
        }
    }

    fn window(&self) -> Option<(u64, u64)> {
        lock(self).configuration.window().map(|bar| (bar, u64::from(BAR_SIZE)))
    }

    fn read_window(&mut self, offset: u64, data: &mut [u8]) {
        lock(self).read_bar(offset, data);
    }

    fn write_window(&mut self, offset: u64, data: &[u8]) {
        lock(self).write_bar(offset, data);
    }
}
