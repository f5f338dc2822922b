//! Bytes of the guest agent's channel become messages.
//!
//! Guarantees: a line is at most [`MAX_LINE_BYTES`], so memory is bounded whatever the guest writes; what is no answer of the
//! protocol is left out.

use serde_json::Value;

/// The longest line that is read; the longest honest one is a list of hundreds of interfaces.
pub(crate) const MAX_LINE_BYTES: usize = 256 << 10;

/// The longest text of the guest's that is passed on as a reason.
const MOST_CHARS: usize = 300;

/// A byte that no JSON text holds: the agent writes it before an answer to `guest-sync-delimited`, and drops what it has
/// read so far when it reads one.
pub(crate) const SENTINEL: u8 = 0xFF;

/// A line of the agent's.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Message {
    /// The result of a command that was executed.
    Return(Value),
    /// Why a command was not executed.
    Error(String),
    /// A line longer than any answer.
    TooLong,
}

/// A line in the making.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    line: Vec<u8>,
    is_skipped: bool,
}

impl Decoder {
    /// Takes bytes in and hands on each message that they complete.
    pub(crate) fn take(&mut self, bytes: &[u8], mut on_message: impl FnMut(Message)) {
        for byte in bytes {
            match *byte {
                SENTINEL => self.begin(),
                b'\n' if self.is_skipped => {
                    self.begin();
                    on_message(Message::TooLong);
                }
                b'\n' => {
                    parse(&self.line).into_iter().for_each(&mut on_message);
                    self.begin();
                }
                _ if self.is_skipped => {}
                _ if self.line.len() >= MAX_LINE_BYTES => {
                    self.line = Vec::new();
                    self.is_skipped = true;
                }
                byte => self.line.push(byte),
            }
        }
    }

    fn begin(&mut self) {
        self.line.clear();
        self.is_skipped = false;
    }
}

fn parse(line: &[u8]) -> Option<Message> {
    let Ok(Value::Object(mut object)) = serde_json::from_slice(line) else { return None };
    if let Some(value) = object.remove("return") {
        return Some(Message::Return(value));
    }
    let reason = object.get("error")?.get("desc")?.as_str()?;
    Some(Message::Error(printable(reason, MOST_CHARS)))
}

/// A guest's text for logs, messages and files: without control characters, and not longer than `most` characters.
pub(crate) fn printable(text: &str, most: usize) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(most).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn messages(bytes: &[u8]) -> Vec<Message> {
        let mut messages = Vec::new();
        Decoder::default().take(bytes, |message| messages.push(message));
        messages
    }

    #[test]
    fn answers_and_refusals_are_read_and_a_sentinel_drops_what_was_before() {
        let bytes =
            b"{\"retu\xff{\"return\": 7}\r\n{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\\u001b[2J\"}}\n";
        assert_eq!(messages(bytes), [Message::Return(json!(7)), Message::Error("no[2J".to_owned())]);
    }

    // spec: AGENT-2
    #[test]
    fn lines_that_are_no_answers_are_left_out() {
        let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
        let lines: [&[u8]; 9] = [
            b"",
            b"{",
            b"null",
            b"[]",
            b"\xc3\x28",
            b"{\"error\": 1}",
            b"{\"error\": {\"desc\": 1}}",
            b"{\"event\": \"x\"}",
            &deep,
        ];
        for line in lines {
            assert_eq!(
                messages(&[line, b"\n"].concat()),
                [],
                "{}",
                String::from_utf8_lossy(&line[..line.len().min(40)])
            );
        }
    }

    // spec: AGENT-2
    #[test]
    fn a_line_without_end_takes_no_more_memory_than_the_longest() {
        let mut decoder = Decoder::default();
        let mut found = Vec::new();
        for _ in 0..100 {
            decoder.take(&[b' '; 64 << 10], |message| found.push(message));
            assert!(decoder.line.capacity() <= 2 * MAX_LINE_BYTES);
        }
        decoder.take(b"\n{\"return\": {}}\n", |message| found.push(message));
        assert_eq!(found, [Message::TooLong, Message::Return(json!({}))]);
    }
}
