//! What a snapshot keeps of a virtio function: PCI registers, the common configuration, MSI-X and each queue.

use serde::{Deserialize, Serialize};
use virtio_queue::QueueT as _;

use super::device::DeviceState;
use super::function::Function;

/// Version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct FunctionState {
    /// The 64 registers of configuration space.
    pub(crate) configuration: Vec<u32>,
    pub(crate) device_feature_select: u32,
    pub(crate) driver_feature_select: u32,
    pub(crate) driver_features: u64,
    pub(crate) config_vector: u16,
    pub(crate) status: u8,
    pub(crate) queue_select: u16,
    pub(crate) isr: u8,
    pub(crate) msix: MsixState,
    pub(crate) queues: Vec<QueueState>,
    pub(crate) generation: u8,
    pub(crate) device: DeviceState,
}

/// MSI-X.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct MsixState {
    pub(crate) control: u16,
    /// Address, upper address, data and control of each vector.
    pub(crate) table: Vec<[u32; 4]>,
    pub(crate) pending: Vec<bool>,
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct QueueState {
    pub(crate) size: u16,
    pub(crate) ready: bool,
    pub(crate) vector: u16,
    pub(crate) event_index: bool,
    pub(crate) descriptors: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
    pub(crate) next_available: u16,
    pub(crate) next_used: u16,
}

impl Function {
    /// Its state, while no processor runs and no queue is served.
    pub(crate) fn save(&self) -> FunctionState {
        let queues = self.queues.iter().map(|queue| QueueState {
            size: queue.queue.size(),
            ready: queue.queue.ready(),
            vector: queue.vector,
            event_index: queue.queue.event_idx_enabled(),
            descriptors: queue.queue.desc_table(),
            available: queue.queue.avail_ring(),
            used: queue.queue.used_ring(),
            next_available: queue.queue.next_avail(),
            next_used: queue.queue.next_used(),
        });
        FunctionState {
            configuration: self.configuration.registers().to_vec(),
            device_feature_select: self.common.device_feature_select,
            driver_feature_select: self.common.driver_feature_select,
            driver_features: self.common.driver_features,
            config_vector: self.common.config_vector,
            status: self.common.status,
            queue_select: self.common.queue_select,
            isr: self.isr,
            generation: self.common.generation,
            device: self.device.save(),
            queues: queues.collect(),
            msix: MsixState {
                control: self.msix.control,
                table: self.msix.table.clone(),
                pending: self.msix.pending.clone(),
            },
        }
    }

    /// Takes over a state of a function of the same device; what does not fit is left as after a reset. It goes on when it is
    /// resumed.
    pub(crate) fn restore(&mut self, state: &FunctionState) {
        self.common.device_feature_select = state.device_feature_select;
        self.common.driver_feature_select = state.driver_feature_select;
        self.common.driver_features = state.driver_features;
        self.common.config_vector = state.config_vector;
        self.common.status = state.status;
        self.common.queue_select = state.queue_select;
        self.common.generation = state.generation;
        self.isr = state.isr;
        self.device.restore(&state.device);
        for (queue, state) in self.queues.iter_mut().zip(&state.queues) {
            let halves = |address: u64| {
                let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
                (Some(u32::from_le_bytes([a, b, c, d])), Some(u32::from_le_bytes([e, f, g, h])))
            };
            queue.vector = state.vector;
            queue.queue.set_size(state.size);
            let (low, high) = halves(state.descriptors);
            queue.queue.set_desc_table_address(low, high);
            let (low, high) = halves(state.available);
            queue.queue.set_avail_ring_address(low, high);
            let (low, high) = halves(state.used);
            queue.queue.set_used_ring_address(low, high);
            queue.queue.set_event_idx(state.event_index);
            queue.queue.set_next_avail(state.next_available);
            queue.queue.set_next_used(state.next_used);
            queue.queue.set_ready(state.ready);
        }
        self.msix.table.iter_mut().zip(&state.msix.table).for_each(|(to, from)| *to = *from);
        self.msix.pending.iter_mut().zip(&state.msix.pending).for_each(|(to, from)| *to = *from);
        self.restore_configuration(&state.configuration, state.msix.control);
    }
}
