//! The registers, and the interrupt line that follows them.

use std::fmt;

use super::spec::{
    EVENTS, POWER_BUTTON, S5_TYPE, SLEEP_CONTROL, SLEEP_ENABLE, SLEEP_STATUS, SLEEP_TYPE_MASK, SLEEP_TYPE_SHIFT,
};

/// What a write asks of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PowerRequest {
    /// State S5.
    Off,
}

/// Sets the level of the event device's interrupt.
pub(crate) type Line = Box<dyn Fn(bool) + Send>;

/// Sleep registers and the event device.
pub(crate) struct Power {
    pub(super) control: u8,
    pub(super) events: u8,
    line: Line,
}

impl fmt::Debug for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Power").field("control", &self.control).field("events", &self.events).finish_non_exhaustive()
    }
}

impl Power {
    /// After a reset. `line` is called with each new level.
    pub(crate) fn new(line: Line) -> Self {
        Self { control: 0, events: 0, line }
    }

    /// Presses the power button.
    pub(crate) fn press(&mut self) {
        self.events |= POWER_BUTTON;
        self.update_line();
    }

    /// The byte at `register`.
    pub(crate) fn read(&self, register: u8) -> u8 {
        match register {
            SLEEP_CONTROL => self.control,
            // The guest never wakes up from S5: it is another boot then.
            SLEEP_STATUS => 0,
            EVENTS => self.events,
            _ => 0xff,
        }
    }

    /// Writes the byte at `register`.
    pub(crate) fn write(&mut self, register: u8, value: u8) -> Option<PowerRequest> {
        match register {
            SLEEP_CONTROL => {
                self.control = value & SLEEP_TYPE_MASK << SLEEP_TYPE_SHIFT;
                let off = value & SLEEP_ENABLE != 0 && self.control >> SLEEP_TYPE_SHIFT == S5_TYPE;
                return off.then_some(PowerRequest::Off);
            }
            EVENTS => {
                self.events &= !value;
                self.update_line();
            }
            _ => {}
        }
        None
    }

    /// The interrupt is level-triggered: it stays up until the guest has cleared what is reported.
    pub(super) fn update_line(&self) {
        (self.line)(self.events != 0);
    }
}
