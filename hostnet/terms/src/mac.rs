//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

use crate::Invalid;

/// A unicast, non-zero Ethernet address, written as six lower-case hexadecimal pairs with colons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// Wraps six bytes; `None` if they are all zero or a group address (lowest bit of the first byte, IEEE 802 §8.2).
    #[must_use]
    pub fn new(bytes: [u8; 6]) -> Option<Self> {
        (bytes != [0; 6] && bytes[0] & 1 == 0).then_some(Self(bytes))
    }

    /// A locally administered address made of five bytes that the caller derived from something stable.
    #[must_use]
    pub const fn local(bytes: [u8; 5]) -> Self {
        Self([0x02, bytes[0], bytes[1], bytes[2], bytes[3], bytes[4]])
    }

    /// The six bytes in transmission order.
    #[must_use]
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for MacAddr {
    type Err = Invalid;

    /// Accepts `aa:bb:cc:dd:ee:ff` and `aa-bb-cc-dd-ee-ff` in either case.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = |rule| Invalid::new("MAC address", text, rule);
        const SHAPE: &str = "must be six hexadecimal pairs separated by ':'";
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0; 6];
        let mut pairs = text.split(separator);
        for byte in &mut bytes {
            let pair = pairs.next().ok_or_else(|| refuse(SHAPE))?;
            if pair.len() != 2 || !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(refuse(SHAPE));
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| refuse(SHAPE))?;
        }
        if pairs.next().is_some() {
            return Err(refuse(SHAPE));
        }
        Self::new(bytes).ok_or_else(|| refuse("must be a unicast address other than zero"))
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

crate::serde_as_text!(MacAddr);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_separators_and_cases_are_read_and_one_is_written() {
        for text in ["02:00:5E:10:00:ff", "02-00-5e-10-00-FF"] {
            assert_eq!(text.parse::<MacAddr>().unwrap().to_string(), "02:00:5e:10:00:ff");
        }
    }

    #[test]
    fn group_zero_and_misshapen_addresses_are_refused() {
        for text in [
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "02:00:5e:10:00",
            "02:00:5e:10:00:ff:00",
            "02:0:5e:10:00:ff",
            "+2:00:5e:10:00:ff",
        ] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }
}
