//! Text of others made safe for a terminal.

use std::borrow::Cow;

/// The text with every character that controls a terminal or turns the direction of writing written as an escape
/// (`\u{1b}`); line feeds and tabs stay.
///
/// Names, messages of other programs and guests' output may hold sequences that recolour, retitle, overwrite or, on some
/// terminals, type.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_control) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_control(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

fn is_control(character: char) -> bool {
    // Bidirectional marks, embeddings, overrides and isolates (Unicode UAX #9).
    let turns =
        matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || (character.is_control() && character != '\n' && character != '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: CLI-4
    #[test]
    fn what_controls_a_terminal_is_written_as_an_escape() {
        assert_eq!(visible("plain · ä\n\ttext"), "plain · ä\n\ttext");
        assert_eq!(visible("\u{1b}]0;title\u{7}\r\u{9b}2J\u{7f}"), "\\u{1b}]0;title\\u{7}\\u{d}\\u{9b}2J\\u{7f}");
        assert_eq!(visible("user\u{202e}txt"), "user\\u{202e}txt");
    }
}
