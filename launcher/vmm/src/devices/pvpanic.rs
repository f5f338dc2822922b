//! pvpanic: the port where a guest's kernel reports that it gave up (QEMU, docs/specs/pvpanic.rst).

/// The kernel panicked and stops.
const PANICKED: u8 = 1 << 0;
/// It panicked and starts its crash kernel: the machine goes on.
const CRASH_LOADED: u8 = 1 << 1;

/// It has no state.
#[derive(Debug, Default)]
pub(crate) struct Pvpanic;

impl Pvpanic {
    /// The events that it understands.
    #[expect(clippy::unused_self, reason = "a device is asked like any other")]
    pub(crate) fn read(&self) -> u8 {
        PANICKED | CRASH_LOADED
    }

    /// An event. Whether the machine is over.
    #[expect(clippy::unused_self, reason = "a device is asked like any other")]
    pub(crate) fn write(&self, events: u8) -> bool {
        events & PANICKED != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_with_a_crash_kernel_goes_on() {
        assert!(Pvpanic.write(PANICKED));
        assert!(!Pvpanic.write(CRASH_LOADED));
        assert!(!Pvpanic.write(0));
    }
}
