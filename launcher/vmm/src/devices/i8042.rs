//! The keyboard controller, of which there is only the reset line: Linux without ACPI, and our FADT, reset the machine by it.

/// Command: pulse output line 0, the processor's reset (Intel 8042, commands F0–FF).
const PULSE_RESET: u8 = 0xfe;

/// It has no state.
#[derive(Debug, Default)]
pub(crate) struct I8042;

impl I8042 {
    /// Data and status: both buffers empty, so that no driver waits.
    #[expect(clippy::unused_self, reason = "a device is asked like any other")]
    pub(crate) fn read(&self) -> u8 {
        0
    }

    /// A command. Whether it resets the machine.
    #[expect(clippy::unused_self, reason = "a device is asked like any other")]
    pub(crate) fn write_command(&self, command: u8) -> bool {
        command == PULSE_RESET
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_reset_command_resets() {
        let resets: Vec<u8> = (0..=u8::MAX).filter(|command| I8042.write_command(*command)).collect();
        assert_eq!(resets, [0xfe]);
        assert_eq!(I8042.read(), 0);
    }
}
