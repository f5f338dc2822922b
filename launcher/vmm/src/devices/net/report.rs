//! What is known of a device's traffic, for who runs the machine. It lives through resets.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// What moves the frames of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum DataPath {
    /// Nothing: no driver has begun.
    Idle,
    /// This process.
    Own,
    /// The kernel, by vhost-net.
    VhostNet,
}

/// Counters of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueCounts {
    /// Frames, with segments of one counted as one.
    pub frames: u64,
    /// Their bytes, without the header of virtio.
    pub bytes: u64,
    /// Frames that were dropped: too short, too long, or refused by the tap.
    pub dropped: u64,
    /// Frames that the driver does not want.
    pub filtered: u64,
}

/// Frames of one queue, as counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    frames: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
    filtered: AtomicU64,
}

impl Counters {
    /// A frame of so many bytes.
    pub(super) fn passed(&self, bytes: usize) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A frame that was dropped.
    pub(super) fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// A frame that the driver does not want.
    pub(super) fn filtered(&self) {
        self.filtered.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> QueueCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        QueueCounts {
            frames: read(&self.frames),
            bytes: read(&self.bytes),
            dropped: read(&self.dropped),
            filtered: read(&self.filtered),
        }
    }
}

/// What is known of a network device's traffic. Frames that the kernel moves are counted by the tap, and not here.
#[derive(Debug)]
pub struct NicReport {
    path: AtomicU8,
    queues: Vec<Counters>,
}

impl NicReport {
    /// Of a device with so many pairs of queues.
    #[must_use]
    pub fn new(pairs: usize) -> Self {
        let queues = std::iter::repeat_with(Counters::default).take(2 * pairs).collect();
        Self { path: AtomicU8::new(DataPath::Idle as u8), queues }
    }

    /// What moves the frames.
    #[must_use]
    pub fn data_path(&self) -> DataPath {
        match self.path.load(Ordering::Relaxed) {
            path if path == DataPath::Own as u8 => DataPath::Own,
            path if path == DataPath::VhostNet as u8 => DataPath::VhostNet,
            _ => DataPath::Idle,
        }
    }

    /// Counters of each queue: receive and transmit of the first pair, then of the others.
    #[must_use]
    pub fn queues(&self) -> Vec<QueueCounts> {
        self.queues.iter().map(Counters::read).collect()
    }

    pub(super) fn set_path(&self, path: DataPath) {
        self.path.store(path as u8, Ordering::Relaxed);
    }

    pub(super) fn of(&self, queue: usize) -> Option<&Counters> {
        self.queues.get(queue)
    }
}
