//! Base64 of RFC 4648 §4 and hexadecimal: the few lines that Secrets, cloud-init and derived names need.

use std::fmt::Write;

/// Decodes standard base64; line breaks are skipped, padding may be missing.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    let symbols: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let trimmed = match symbols.as_slice() {
        [rest @ .., b'=', b'='] if symbols.len().is_multiple_of(4) => rest,
        [rest @ .., b'='] if symbols.len().is_multiple_of(4) => rest,
        all => all,
    };
    let mut bytes = Vec::with_capacity(trimmed.len() / 4 * 3 + 2);
    for group in trimmed.chunks(4) {
        let bits = group.iter().try_fold(0_u32, |bits, symbol| Some(bits << 6 | sextet(*symbol)?))?;
        let bits = bits << (6 * (4 - group.len()));
        let [_, first, second, third] = bits.to_be_bytes();
        match group.len() {
            4 => bytes.extend([first, second, third]),
            3 if third == 0 => bytes.extend([first, second]),
            2 if second == 0 => bytes.push(first),
            _ => return None,
        }
    }
    Some(bytes)
}

fn sextet(symbol: u8) -> Option<u32> {
    Some(u32::from(match symbol {
        b'A'..=b'Z' => symbol - b'A',
        b'a'..=b'z' => symbol - b'a' + 26,
        b'0'..=b'9' => symbol - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_rfc_4648_decode_with_and_without_padding() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9v\nYmFy\n", "foobar"),
            ("Zg", "f"),
        ] {
            assert_eq!(from_base64(text).as_deref(), Some(bytes.as_bytes()), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_base64_decodes_to_nothing() {
        for text in ["Z", "Zg=", "Zh==", "Zm9-", "Zg==Zg==", "ä"] {
            assert_eq!(from_base64(text), None, "{text:?}");
        }
    }

    #[test]
    fn hexadecimal_is_lower_case() {
        assert_eq!(hex(&[0, 0xab, 0x10]), "00ab10");
    }
}
