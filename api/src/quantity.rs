//! Kubernetes quantities, exactly: `1Gi`, `100M`, `250m`, `1.5e3`.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;
use terms::Invalid;

use crate::reader::Node;

const NANO: u128 = 1_000_000_000;
/// Longer than any number that makes a difference.
const MAX_BYTES: usize = 64;
const RULE: &str =
    "must be a number of at least 0 with one of the suffixes n u m k M G T P E Ki Mi Gi Ti Pi Ei or an exponent";

/// An amount of at least zero, kept to a billionth as Kubernetes does, with the text it was written as.
#[derive(Debug, Clone)]
pub struct Quantity {
    nano: u128,
    text: String,
}

impl Quantity {
    /// Reads a quantity, which may be written as text or as a number.
    pub(crate) fn read(node: &Node<'_>) -> Option<Self> {
        match node.value() {
            Value::Number(number) => number.to_string().parse().map_err(|error| node.refuse(error)).ok(),
            _ => node.parsed(),
        }
    }

    /// The amount rounded up to a whole number, `None` beyond 2⁶⁴.
    #[must_use]
    pub fn rounded_up(&self) -> Option<u64> {
        u64::try_from(self.nano.div_ceil(NANO)).ok()
    }

    /// Thousandths, rounded up, `None` beyond 2⁶⁴.
    #[must_use]
    pub fn milli_rounded_up(&self) -> Option<u64> {
        u64::try_from(self.nano.div_ceil(NANO / 1000)).ok()
    }

    /// Whether the amount is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }
}

impl FromStr for Quantity {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let nano = nano(text).ok_or_else(|| Invalid::new("quantity", text, RULE))?;
        Ok(Self { nano, text: text.to_owned() })
    }
}

/// `text` in billionths, rounded up. The number's digits are joined to an integer, so nothing is lost on the way.
fn nano(text: &str) -> Option<u128> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if text.len() > MAX_BYTES {
        return None;
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || fraction.contains('.') {
        return None;
    }
    // Trailing zeros of a fraction carry nothing and would only cost range.
    let fraction = fraction.trim_end_matches('0');
    let digits: u128 = format!("0{whole}{fraction}").parse().ok()?;
    let scale = scale(suffix)?;
    let power = scale.ten - i32::try_from(fraction.len()).ok()? + 9;
    let scaled = digits.checked_mul(scale.factor)?;
    match u32::try_from(power) {
        Ok(power) => scaled.checked_mul(10_u128.checked_pow(power)?),
        // More digits than a u128 can have leave the smallest amount that is not zero.
        Err(_) => {
            Some(10_u128.checked_pow(power.unsigned_abs()).map_or(u128::from(scaled > 0), |d| scaled.div_ceil(d)))
        }
    }
}

/// What a suffix multiplies by: `factor` × 10 to the power `ten`.
struct Scale {
    factor: u128,
    ten: i32,
}

fn scale(suffix: &str) -> Option<Scale> {
    let ten = |ten| Some(Scale { factor: 1, ten });
    let binary = |power: u32| Some(Scale { factor: 1 << (10 * power), ten: 0 });
    match suffix {
        "" => ten(0),
        "n" => ten(-9),
        "u" => ten(-6),
        "m" => ten(-3),
        "k" => ten(3),
        "M" => ten(6),
        "G" => ten(9),
        "T" => ten(12),
        "P" => ten(15),
        "E" => ten(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            ten(exponent.parse::<i32>().ok().filter(|exponent| (-99..=99).contains(exponent))?)
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Quantity {
        text.parse().unwrap()
    }

    #[test]
    fn suffixes_and_exponents_multiply_exactly() {
        for (text, whole) in [
            ("0", 0),
            ("1Ki", 1 << 10),
            ("1.5Gi", 3 << 29),
            ("64M", 64_000_000),
            ("1E", 1_000_000_000_000_000_000),
            ("1E3", 1000),
            ("12e6", 12_000_000),
            ("1000000000.0", 1_000_000_000),
            ("15Ei", 15 << 60),
            (".5k", 500),
            ("+2", 2),
        ] {
            assert_eq!(quantity(text).rounded_up(), Some(whole), "{text}");
        }
    }

    #[test]
    fn parts_are_rounded_up_as_kubernetes_does() {
        assert_eq!(quantity("250m").rounded_up(), Some(1));
        assert_eq!(quantity("250m").milli_rounded_up(), Some(250));
        assert_eq!(quantity("1500u").milli_rounded_up(), Some(2));
        assert_eq!(quantity("0.00000000001").milli_rounded_up(), Some(1));
        assert_eq!(quantity("0.1").milli_rounded_up(), Some(100));
    }

    #[test]
    fn spelling_does_not_matter_when_amounts_are_compared() {
        assert_eq!(quantity("1Gi"), quantity("1024Mi"));
        assert!(quantity("1G") < quantity("1Gi"));
    }

    #[test]
    fn what_is_no_quantity_is_refused_with_the_rule() {
        for text in [
            "",
            "Gi",
            "1gi",
            "1 Gi",
            "-1",
            "1.2.3",
            "1e",
            "1e100",
            "0x10",
            "1KiB",
            "99999999999999999999999999999999Ei",
        ] {
            let error = text.parse::<Quantity>().unwrap_err().to_string();
            assert!(error.contains("must be a number of at least 0"), "{text:?}: {error}");
        }
    }

    #[test]
    fn more_than_an_u64_is_said_by_none() {
        assert_eq!(quantity("16Ei").rounded_up(), None);
    }
}
