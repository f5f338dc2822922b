//! Base64 of RFC 4648 §4: the few lines that Secrets, cloud-init and launch files need.

/// Decodes standard base64; line breaks are skipped, padding may be missing.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<u8>> {
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

/// Encodes as standard base64 with padding.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    const SYMBOLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let [first, second, third] = [0, 1, 2].map(|at| u32::from(group.get(at).copied().unwrap_or_default()));
        let bits = first << 16 | second << 8 | third;
        for place in 0..4 {
            let symbol = SYMBOLS.get((bits >> (18 - 6 * place) & 63) as usize).copied().unwrap_or_default();
            text.push(if place <= group.len() { char::from(symbol) } else { '=' });
        }
    }
    text
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
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_base64_decodes_to_nothing() {
        for text in ["Z", "Zg=", "Zh==", "Zm9-", "Zg==Zg==", "ä"] {
            assert_eq!(decode(text), None, "{text:?}");
        }
    }
}
