//! Kept inputs as text, one a line: `text "…"` is a JSON string, `hex …` is bytes. Lines that begin with `#` describe
//! the inputs after them.

use std::path::{Path, PathBuf};

/// An input and what was written about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The comment lines before it.
    pub description: String,
    /// The input.
    pub bytes: Vec<u8>,
}

/// Where inputs are kept: `corpus/<target>.txt`, `findings/<target>.txt`.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Reads the inputs of a file; a file that is not there has none.
///
/// # Errors
/// When the file cannot be read, or a line is not of the three kinds; names file and line.
pub fn read(path: &Path) -> Result<Vec<Input>, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text).map_err(|(line, wrong)| format!("{}:{line}: {wrong}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn parse(text: &str) -> Result<Vec<Input>, (usize, &'static str)> {
    let mut inputs = Vec::new();
    let mut description = String::new();
    let mut was_input = false;
    for (number, line) in text.lines().enumerate() {
        if let Some(words) = line.strip_prefix('#') {
            if was_input {
                description.clear();
            }
            description.push_str(words.trim());
            description.push('\n');
            was_input = false;
        } else if !line.is_empty() {
            let bytes = decode(line).map_err(|wrong| (number + 1, wrong))?;
            inputs.push(Input { description: description.trim().to_owned(), bytes });
            was_input = true;
        }
    }
    Ok(inputs)
}

fn decode(line: &str) -> Result<Vec<u8>, &'static str> {
    match line.split_once(' ') {
        Some(("text", text)) => {
            serde_json::from_str::<String>(text).map(String::into_bytes).map_err(|_| "is no JSON string")
        }
        Some(("hex", digits)) => bytes(digits).ok_or("is no even number of hexadecimal digits"),
        _ => Err("begins with none of #, text and hex"),
    }
}

/// Bytes from hexadecimal digits.
#[must_use]
pub fn bytes(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let pair = |pair: &[u8]| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?);
    digits.as_bytes().chunks(2).map(pair).collect()
}

/// The line of an input: text where a person can read it, else digits.
#[must_use]
pub fn line(input: &[u8]) -> String {
    let readable = |text: &&str| text.chars().all(|c| c == '\n' || c == '\t' || !c.is_control());
    match std::str::from_utf8(input).ok().filter(readable) {
        Some(text) => format!("text {}", serde_json::Value::from(text)),
        None => input.iter().fold("hex ".to_owned(), |line, byte| format!("{line}{byte:02x}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_read_as_it_was_written() {
        for input in [&b""[..], b"a \"b\"\n\tc", "é".as_bytes(), b"\x00\xff", b"\r"] {
            assert_eq!(decode(&line(input)).unwrap(), input);
        }
    }

    #[test]
    fn a_description_is_for_all_inputs_up_to_the_next_one() {
        let inputs = parse("# one\n# more\n\nhex 00\nhex 01\n# two\ntext \"a\"\n").unwrap();
        let found: Vec<_> = inputs.iter().map(|input| (input.description.as_str(), &input.bytes[..])).collect();
        assert_eq!(found, [("one\nmore", &[0][..]), ("one\nmore", &[1]), ("two", b"a")]);
    }

    #[test]
    fn a_line_of_another_kind_is_named() {
        assert_eq!(parse("# a\nhex 0\n").unwrap_err().0, 2);
        assert_eq!(parse("hex zz").unwrap_err().0, 1);
        assert_eq!(parse("text a").unwrap_err().0, 1);
        assert_eq!(parse("nonsense").unwrap_err().0, 1);
    }
}
