//! Domain names as DNS writes them on the wire (RFC 1035 §3.1), with and without compression.

use std::fmt;
use std::str::FromStr;

use terms::Invalid;

/// A domain name that can be written on the wire: labels of 1 to 63 letters, digits, `-` and `_`, at most 253
/// characters in all, without the closing dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(String);

impl DomainName {
    /// The name as text, without a closing dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The suffixes of the name, longest first: `a.b.c`, `b.c`, `c`.
    fn suffixes(&self) -> impl Iterator<Item = &str> {
        let dots = self.0.match_indices('.').filter_map(|(at, _)| self.0.get(at + 1..));
        std::iter::once(self.0.as_str()).chain(dots)
    }
}

impl FromStr for DomainName {
    type Err = Invalid;

    /// A closing dot is accepted and dropped.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let good = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        if name.len() > 253 || !name.split('.').all(|l| (1..=63).contains(&l.len()) && l.bytes().all(good)) {
            let rule = "must be labels of 1 to 63 letters, digits, '-' and '_', at most 253 characters in all";
            return Err(Invalid::new("domain name", text, rule));
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The names one after the other, each whole (RFC 8415 §10, RFC 8106 §5.2), as many as fit into `room` bytes, and how many
/// do not.
pub(crate) fn plain(names: &[DomainName], room: usize) -> (Vec<u8>, usize) {
    let (mut wire, mut left_out) = (Vec::new(), names.len());
    // A name takes two bytes more than its text: the first label's length and the root.
    for name in names {
        if wire.len() + name.0.len() + 2 > room {
            break;
        }
        name.0.split('.').for_each(|label| push_label(&mut wire, label));
        wire.push(0);
        left_out -= 1;
    }
    (wire, left_out)
}

/// Names with common endings written once. A pointer only leads backwards, so the list can end behind any name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Compressed {
    pub(crate) wire: Vec<u8>,
    /// Where each name ends in `wire`.
    pub(crate) ends: Vec<usize>,
}

/// Writes all names with common endings written once (RFC 3397 §2: pointers count from the option's first byte).
pub(crate) fn compressed(names: &[DomainName]) -> Compressed {
    let mut list = Compressed::default();
    let mut written: Vec<(&str, u16)> = Vec::new();
    for name in names {
        push_compressed(&mut list.wire, &mut written, name);
        list.ends.push(list.wire.len());
    }
    list
}

fn push_compressed<'a>(wire: &mut Vec<u8>, written: &mut Vec<(&'a str, u16)>, name: &'a DomainName) {
    for suffix in name.suffixes() {
        if let Some((_, at)) = written.iter().find(|(known, _)| *known == suffix) {
            wire.extend((0xc000 | at).to_be_bytes());
            return;
        }
        // A pointer has 14 bits (RFC 1035 §4.1.4).
        if let Some(at) = u16::try_from(wire.len()).ok().filter(|at| *at < 0x4000) {
            written.push((suffix, at));
        }
        push_label(wire, suffix.split('.').next().unwrap_or_default());
    }
    wire.push(0);
}

/// A label is at most 63 bytes by the type's rule; the saturation is never seen.
fn push_label(wire: &mut Vec<u8>, label: &str) {
    wire.push(u8::try_from(label.len()).unwrap_or(63));
    wire.extend(label.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(texts: &[&str]) -> Vec<DomainName> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn common_endings_are_written_once() {
        // The example of RFC 3397 §2.1, whose second name points behind the first one's first label.
        let wire = compressed(&names(&["eng.apple.com", "marketing.apple.com"]));
        assert_eq!(wire.ends, [15, 27]);
        assert_eq!(wire.wire, b"\x03eng\x05apple\x03com\x00\x09marketing\xc0\x04");
    }

    #[test]
    fn a_repeated_name_is_a_pointer_alone() {
        assert_eq!(compressed(&names(&["a.b", "a.b"])).wire, b"\x01a\x01b\x00\xc0\x00");
    }

    #[test]
    fn plain_names_stand_whole_as_far_as_they_fit() {
        let both = names(&["a.b.", "b"]);
        assert_eq!(plain(&both, 8), (b"\x01a\x01b\x00\x01b\x00".to_vec(), 0));
        assert_eq!(plain(&both, 7), (b"\x01a\x01b\x00".to_vec(), 1));
    }

    #[test]
    fn names_that_dns_cannot_carry_are_refused() {
        for text in ["", ".", "a..b", "a b", "ä.de", &"a".repeat(64), &"a.".repeat(127)[..253].repeat(2)] {
            assert!(text.parse::<DomainName>().is_err(), "{text:?}");
        }
    }
}
