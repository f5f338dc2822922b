//! What a launcher answers to `counters`: what its machine has used, and each NIC's traffic.

use serde::{Deserialize, Serialize};

/// The answer to `counters`. Fields may be absent from launchers of other releases.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counters {
    /// The guest's memory, in bytes.
    pub memory_bytes: u64,
    /// The process that executes the guest; `None` where the launcher cannot read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessCounters>,
    /// The NICs in the machine's order.
    pub nics: Vec<NicCounters>,
}

/// What a process has used since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProcessCounters {
    /// Processor time in user mode, of all threads, with the guest's own.
    pub user_milliseconds: u64,
    /// Processor time in the kernel.
    pub system_milliseconds: u64,
    /// Memory that is resident now.
    pub resident_bytes: u64,
}

/// The traffic of one NIC, as its guest sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NicCounters {
    /// Name of the interface in the manifest.
    pub name: String,
    /// What came to the guest.
    pub received: TrafficCounters,
    /// What the guest sent.
    pub sent: TrafficCounters,
    /// What moves the frames between tap and guest; `None` where the engine does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_path: Option<DataPath>,
    /// Pairs of queues, as the engine counts them. What vhost-net moves is in `received` and `sent` alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<QueuePairCounters>,
}

/// What moves the frames of a NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DataPath {
    /// Nothing: no driver has begun.
    Idle,
    /// The launcher.
    Launcher,
    /// The kernel, by vhost-net.
    VhostNet,
    /// One that this release does not know.
    #[serde(other)]
    Unknown,
}

/// A pair of queues of a NIC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueuePairCounters {
    /// What the guest received here.
    pub received: TrafficCounters,
    /// Frames that the guest's driver does not want.
    pub filtered: u64,
    /// What the guest sent here.
    pub sent: TrafficCounters,
}

/// One direction of a NIC's traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficCounters {
    /// With the Ethernet header.
    pub bytes: u64,
    /// Frames, or what the guest hands over to be cut into frames.
    pub packets: u64,
    /// For lack of room, or of a taker.
    pub dropped: u64,
    /// Refused as malformed.
    pub errors: u64,
}
