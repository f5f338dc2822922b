//! Target `monitor`: what a QEMU says on its monitor, which a guest may have taken over.

use launcher::heard;

/// Answers that wait to be read.
const MOST_ANSWERS: usize = 16;
/// An event as it is logged and kept.
const LONGEST_EVENT_BYTES: usize = 8192;

/// Reads an input and panics when a promise is broken.
pub fn check(input: &[u8]) {
    let (events, answers) = heard(input, vec!["root".to_owned(), "data".to_owned()]);
    let lines = input.split(|byte| *byte == b'\n').count();
    assert!(events.len() <= lines, "{} events from {lines} lines", events.len());
    assert!(answers <= MOST_ANSWERS, "{answers} answers wait");
    events.iter().for_each(|event| crate::assert_short(&format!("{event:?}"), LONGEST_EVENT_BYTES));
    // However the bytes arrive, they say the same.
    let (slowly, _) = heard(OneByOne(input), vec!["root".to_owned(), "data".to_owned()]);
    assert_eq!(slowly, events);
}

/// A peer that writes one byte at a time.
struct OneByOne<'a>(&'a [u8]);

impl std::io::Read for OneByOne<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(1);
        self.0.read(&mut buffer[..length])
    }
}
