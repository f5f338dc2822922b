//! Target `agent`: what a guest writes on the channel of its agent.

use launcher::agent_heard;
use serde_json::Value;

/// What is kept of one answer when each reader takes it for its own: two messages of the control socket.
const LONGEST_MESSAGE_BYTES: usize = 128 << 10;

/// Reads an input and panics when a promise is broken.
pub fn check(input: &[u8]) {
    let heard = agent_heard(input, input.len());
    let lines = input.split(|byte| *byte == b'\n').count();
    assert!(heard.len() <= lines, "{} messages from {lines} lines", heard.len());
    for message in &heard {
        crate::assert_short(&message.to_string(), LONGEST_MESSAGE_BYTES);
        assert_printable(message);
    }
    // However the bytes arrive, they say the same.
    assert_eq!(agent_heard(input, 1), heard);
}

/// No text of a guest's moves a terminal's cursor; a program's output has lines.
fn assert_printable(value: &Value) {
    match value {
        Value::String(text) => {
            let odd = text.chars().find(|letter| letter.is_control() && !matches!(letter, '\n' | '\t'));
            assert_eq!(odd, None, "{text:?}");
        }
        Value::Array(items) => items.iter().for_each(assert_printable),
        Value::Object(fields) => fields.values().for_each(assert_printable),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
