//! The debug port of Bochs and QEMU: what firmware writes there goes to our log, line by line.

/// What firmware reads to know that there is one.
const PRESENT: u8 = 0xe9;
/// A guest cannot make us keep more of a line.
const LONGEST: usize = 256;

/// The line that has not ended yet; a snapshot does not keep it.
#[derive(Debug, Default)]
pub(crate) struct DebugPort {
    line: Vec<u8>,
}

impl DebugPort {
    /// That it is there.
    #[expect(clippy::unused_self, reason = "a device is asked like any other")]
    pub(crate) fn read(&self) -> u8 {
        PRESENT
    }

    /// A byte of a line.
    pub(crate) fn write(&mut self, byte: u8) {
        if let Some(line) = self.push(byte) {
            tracing::debug!(line, "the guest's firmware");
        }
    }

    fn push(&mut self, byte: u8) -> Option<String> {
        if byte != b'\n' {
            self.line.push(byte);
        }
        let ended = byte == b'\n' || self.line.len() >= LONGEST;
        ended.then(|| String::from_utf8_lossy(&std::mem::take(&mut self.line)).escape_debug().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_hold_no_control_characters() {
        let mut port = DebugPort::default();
        let lines: Vec<_> = b"one\x1b[2J\n".iter().filter_map(|byte| port.push(*byte)).collect();
        assert_eq!(lines, ["one\\u{1b}[2J"]);
        let lines: Vec<_> = [b'x'; 1000].iter().filter_map(|byte| port.push(*byte)).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(port.read(), 0xe9);
    }
}
