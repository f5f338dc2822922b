//! Durations as Go writes them in JSON.

use super::status::Failure;

/// Whole seconds of a duration as Go writes it: `5m0s`, `1h2m3.5s`, `300ms`.
///
/// # Errors
/// The text is none, or has more seconds than KubeVirt's type.
pub(super) fn seconds(text: &str) -> Result<u64, Failure> {
    let wrong = || Failure::bad_request(format!("unfreezeTimeout: {text:?} is no duration such as 5m0s"));
    // The only number without a unit.
    let mut rest = if text == "0" { "0s" } else { text };
    let mut nanoseconds = 0.0;
    while !rest.is_empty() {
        let (digits, after) =
            rest.split_at(rest.find(|letter: char| letter.is_ascii_alphabetic() || letter == 'µ').ok_or_else(wrong)?);
        let (unit, after) = after.split_at(after.find(|letter: char| letter.is_ascii_digit()).unwrap_or(after.len()));
        let unit = match unit {
            "h" => 3600.0 * 1e9,
            "m" => 60.0 * 1e9,
            "s" => 1e9,
            "ms" => 1e6,
            "us" | "µs" => 1e3,
            "ns" => 1.0,
            _ => return Err(wrong()),
        };
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let number: f64 = digits.parse().ok().filter(|_| is_number).ok_or_else(wrong)?;
        nanoseconds += number * unit;
        rest = after;
    }
    let seconds = (nanoseconds / 1e9).floor();
    if text.is_empty() || seconds > f64::from(i32::MAX) {
        return Err(wrong());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 2^31")]
    Ok(seconds as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: SUB-10
    #[test]
    fn the_time_of_a_freeze_is_read_as_go_writes_it() {
        for (text, expected) in
            [("5m0s", 300), ("10s", 10), ("0s", 0), ("0", 0), ("1h2m3.5s", 3723), ("300ms", 0), ("1500ms", 1)]
        {
            assert_eq!(seconds(text).unwrap(), expected, "{text}");
        }
        for text in ["", "5", "-5s", "5x", "s", "1e9s", "99999999h", "5m 0s"] {
            let failure = seconds(text).unwrap_err();
            assert!(failure.code == 400 && failure.message.starts_with("unfreezeTimeout: "), "{text}");
        }
    }
}
