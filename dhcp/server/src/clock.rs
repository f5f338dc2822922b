//! The time that the engines get.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The time since the epoch, as the machine's clock had it at the start: a clock that is set meanwhile changes no lease.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// Epoch to the machine's start.
    offset: Duration,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { offset: read(ClockId::CLOCK_REALTIME).saturating_sub(read(ClockId::CLOCK_BOOTTIME)) }
    }

    pub(crate) fn now(self) -> Duration {
        self.offset + read(ClockId::CLOCK_BOOTTIME)
    }
}

/// Both clocks exist on every Linux that this program runs on.
fn read(clock: ClockId) -> Duration {
    clock_gettime(clock).map(Duration::from).unwrap_or_default()
}
