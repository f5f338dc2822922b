//! The registers, and the interrupt line that follows them.

use std::fmt;
use std::time::Duration;

use super::spec::{
    PM_TIMER, PM1_CONTROL, PM1_EVENT, POWER_BUTTON, S5_TYPE, SCI_ENABLE, SLEEP_ENABLE, SLEEP_TYPE_MASK,
    SLEEP_TYPE_SHIFT, STATUS_BITS, TIMER_HERTZ,
};

/// What a write asks of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PowerRequest {
    /// State S5.
    Off,
}

/// Sets the level of the SCI.
pub(crate) type Line = Box<dyn Fn(bool) + Send>;

/// PM1 and the timer.
pub(crate) struct Power {
    pub(super) status: u16,
    pub(super) enable: u16,
    pub(super) control: u16,
    line: Line,
}

impl fmt::Debug for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Power").field("status", &self.status).field("enable", &self.enable).finish_non_exhaustive()
    }
}

impl Power {
    /// After a reset. `line` is called with each new level.
    pub(crate) fn new(line: Line) -> Self {
        Self { status: 0, enable: 0, control: 0, line }
    }

    /// Presses the power button.
    pub(crate) fn press(&mut self) {
        self.status |= POWER_BUTTON;
        self.update_line();
    }

    /// The byte at `register`, at `now` since any fixed moment.
    pub(crate) fn read(&self, register: u8, now: Duration) -> u8 {
        let byte = |value: u16, at: u8| value.to_le_bytes().get(usize::from(at)).copied().unwrap_or(0xff);
        match register {
            0..2 => byte(self.status, register - PM1_EVENT),
            2..4 => byte(self.enable, register - PM1_EVENT - 2),
            4..6 => byte(self.control | SCI_ENABLE, register - PM1_CONTROL),
            8..12 => {
                let ticks = now.as_nanos() * TIMER_HERTZ / 1_000_000_000;
                ticks.to_le_bytes().get(usize::from(register - PM_TIMER)).copied().unwrap_or(0xff)
            }
            _ => 0xff,
        }
    }

    /// Writes the byte at `register`. A wide access comes low byte first, so the byte with `SLP_EN` follows the others.
    pub(crate) fn write(&mut self, register: u8, value: u8) -> Option<PowerRequest> {
        let placed = |at: u8| u16::from(value) << (8 * at);
        let kept = |old: u16, at: u8| old & !(0xff << (8 * at));
        match register {
            0..2 => self.status &= !(placed(register - PM1_EVENT) & STATUS_BITS),
            2..4 => {
                let at = register - PM1_EVENT - 2;
                self.enable = kept(self.enable, at) | placed(at);
            }
            4..6 => {
                let at = register - PM1_CONTROL;
                self.control = (kept(self.control, at) | placed(at)) & !SLEEP_ENABLE;
                let sleep_type = self.control >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK;
                if placed(at) & SLEEP_ENABLE != 0 && sleep_type == u16::from(S5_TYPE) {
                    return Some(PowerRequest::Off);
                }
            }
            _ => {}
        }
        self.update_line();
        None
    }

    /// The SCI is level-triggered: it stays up until the guest has cleared what it reports.
    pub(super) fn update_line(&self) {
        (self.line)(self.status & self.enable & STATUS_BITS != 0);
    }
}
