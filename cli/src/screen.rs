//! What a guest or its firmware writes, on the way to a terminal.
//!
//! On the console a guest may use its terminal as it likes. Firmware resets it and turns line wrapping off, which outlasts
//! the session: these codes are dropped, and at the end the modes that a guest may have set are set back. A log is read, not
//! used: [`Plain`] leaves its text alone.

use std::sync::atomic::{AtomicBool, Ordering};

const ESCAPE: u8 = 0x1b;
/// Longer control sequences are no terminal's.
const LONGEST: usize = 64;

/// Whether the guest shows the terminal's alternate screen; here for those who end the program while it does.
static IS_ALTERNATE: AtomicBool = AtomicBool::new(false);

/// The codes that set back what a guest may have set (ECMA-48, and xterm's private modes): the main screen if it is not
/// shown, wrapping, the cursor, keys, mouse reports, bracketed paste, insertion, character set, colours, scroll region.
pub(crate) fn restoring() -> Vec<u8> {
    let main_screen: &[u8] = if IS_ALTERNATE.swap(false, Ordering::Relaxed) { b"\x1b[?1049l" } else { b"" };
    let modes: &[u8] = b"\x1b[?7h\x1b[?25h\x1b[?1l\x1b>\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[4l\x1b(B\x0f\x1b[0m";
    // Setting the region moves the cursor.
    [main_screen, modes, b"\x1b7\x1b[r\x1b8"].concat()
}

/// Passes a console's output on without the codes that firmware leaves a terminal broken with.
#[derive(Debug, Default)]
pub(crate) struct Console {
    /// The start of a sequence whose end has not come yet.
    held: Vec<u8>,
}

impl Console {
    /// What of `bytes`, and of what was held back before, goes to the terminal.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if self.held.is_empty() && *byte != ESCAPE {
                out.push(*byte);
                continue;
            }
            if *byte == ESCAPE {
                out.append(&mut self.held);
            }
            self.held.push(*byte);
            if !is_begun(&self.held) {
                out.extend(without_resets(&std::mem::take(&mut self.held)));
            }
        }
        out
    }
}

/// Whether a sequence goes on: a lone ESC, or a control sequence (ECMA-48 §5.4) without its final byte.
fn is_begun(sequence: &[u8]) -> bool {
    match sequence {
        [ESCAPE] | [ESCAPE, b'['] => true,
        [ESCAPE, b'[', .., last] => sequence.len() < LONGEST && (0x20..=0x3f).contains(last),
        _ => false,
    }
}

/// The sequence, unless it resets the terminal (RIS, DECSTR), and without its part that sets wrapping (DECAWM).
fn without_resets(sequence: &[u8]) -> Vec<u8> {
    match sequence {
        [ESCAPE, b'c'] | [ESCAPE, b'[', b'!', b'p'] => Vec::new(),
        [ESCAPE, b'[', b'?', modes @ .., set @ (b'h' | b'l')] => {
            let kept: Vec<_> = modes.split(|byte| *byte == b';').filter(|mode| *mode != b"7").collect();
            if kept.iter().any(|mode| [&b"1049"[..], b"1047", b"47"].contains(mode)) {
                IS_ALTERNATE.store(*set == b'h', Ordering::Relaxed);
            }
            if kept.is_empty() {
                return Vec::new();
            }
            [b"\x1b[?", kept.join(&b';').as_slice(), &[*set]].concat()
        }
        _ => sequence.to_vec(),
    }
}

/// Where in a stream of text and control sequences a reader is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Text,
    Escape,
    /// A control sequence up to its final byte.
    Sequence,
    /// A string for the terminal (OSC, DCS, APC, PM, SOS) up to its terminator, at most to the end of the line.
    String,
}

/// Takes control sequences and control characters out of a log, whatever its pieces.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    place: Place,
    /// A carriage return whose next byte has not come yet.
    has_return: bool,
    /// The start of a character whose end has not come yet.
    character: Vec<u8>,
}

impl Plain {
    /// The text of the next piece.
    pub(crate) fn text(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        bytes.iter().for_each(|byte| self.take(*byte, &mut out));
        out
    }

    fn take(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.place = match (self.place, byte) {
            // A line feed ends every sequence: an unterminated string cannot hide what follows.
            (_, b'\n') => {
                self.has_return = false;
                self.end_character(out);
                out.push(b'\n');
                Place::Text
            }
            (_, ESCAPE) => Place::Escape,
            (Place::Escape, b'[') => Place::Sequence,
            (Place::Escape, b']' | b'P' | b'X' | b'^' | b'_') => Place::String,
            (Place::Escape, 0x20..=0x2f) => Place::Escape,
            (Place::Escape, _) => Place::Text,
            (Place::Sequence, 0x20..=0x3f) => Place::Sequence,
            (Place::Sequence, _) => Place::Text,
            (Place::String, 0x07 | 0x18 | 0x1a) => Place::Text,
            (Place::String, _) => Place::String,
            (Place::Text, byte) => {
                self.write(byte, out);
                Place::Text
            }
        };
    }

    fn write(&mut self, byte: u8, out: &mut Vec<u8>) {
        if byte == b'\r' {
            self.has_return = true;
            return;
        }
        // One without a line feed goes back over what was written.
        if std::mem::take(&mut self.has_return) {
            self.end_character(out);
            out.push(b'\n');
        }
        match byte {
            b'\t' | 0x20..=0x7e => {
                self.end_character(out);
                out.push(byte);
            }
            0x80.. => self.write_character(byte, out),
            _ => {}
        }
    }

    /// Passes UTF-8 on; invalid bytes, and control characters beyond ASCII, become a replacement character.
    fn write_character(&mut self, byte: u8, out: &mut Vec<u8>) {
        if byte & 0xc0 != 0x80 {
            self.end_character(out);
        }
        self.character.push(byte);
        match std::str::from_utf8(&self.character) {
            Ok(text) => {
                out.extend(terms::visible(text).as_bytes());
                self.character.clear();
            }
            Err(error) if error.error_len().is_none() => {}
            Err(_) => self.end_character(out),
        }
    }

    fn end_character(&mut self, out: &mut Vec<u8>) {
        if !std::mem::take(&mut self.character).is_empty() {
            out.extend("\u{fffd}".as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of it in one piece and byte by byte.
    fn console(bytes: &[u8]) -> Vec<u8> {
        let whole = Console::default().pass(bytes);
        let mut console = Console::default();
        let pieces: Vec<u8> = bytes.iter().flat_map(|byte| console.pass(&[*byte])).collect();
        assert_eq!(whole, pieces);
        whole
    }

    fn plain(bytes: &[u8]) -> String {
        let whole = Plain::default().text(bytes);
        let mut plain = Plain::default();
        let pieces: Vec<u8> = bytes.iter().flat_map(|byte| plain.text(&[*byte])).collect();
        assert_eq!(whole, pieces);
        String::from_utf8(whole).unwrap()
    }

    // spec: CLI-5
    #[test]
    fn resets_and_wrapping_codes_of_firmware_do_not_reach_the_terminal() {
        assert_eq!(console(b"\x1bcSeaBIOS\x1b[?7l\x1b[2J\x1b[!p\x1b[?7;25l."), b"SeaBIOS\x1b[2J\x1b[?25l.");
        let guests = b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07\x1b(B\x1b[?25h";
        assert_eq!(console(guests), guests);
        assert_eq!(console(b"\x1b\x1bc\x1b["), b"\x1b");
    }

    // spec: CLI-5
    #[test]
    fn the_alternate_screen_is_left_only_where_the_guest_shows_it() {
        let leaves = || restoring().starts_with(b"\x1b[?1049l");
        console(b"\x1b[?1049h");
        assert!(leaves());
        assert!(!leaves(), "it was left");
        console(b"\x1b[?1049h\x1b[?1049l");
        assert!(!leaves());
    }

    // spec: CLI-4
    #[test]
    fn a_log_is_text_alone() {
        assert_eq!(plain(b"\x1b[32m[ OK ]\x1b[0m up\r\n"), "[ OK ] up\n");
        assert_eq!(plain(b"50%\r100%\r\n"), "50%\n100%\n");
        assert_eq!(plain("grün · \u{9b}2J\u{202e}".as_bytes()), "grün · \\u{9b}2J\\u{202e}");
        assert_eq!(plain(b"a\x9b2J\xc3(\x07\x00b"), "a\u{fffd}2J\u{fffd}(b");
        assert_eq!(plain(b"\x1b]52;c;cm0=\x07seen \x1bP1$r\x1b\\seen"), "seen seen");
        assert_eq!(plain(b"\x1b]0;no end\nseen"), "\nseen");
    }
}
