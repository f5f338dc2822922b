//! Netlink attributes (`struct nlattr` of `linux/netlink.h`): reading and writing them, whatever family they belong to.

/// Attributes (`struct nlattr`) with their type bare of flags; stops at the first that does not fit.
pub(crate) fn attributes_of(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const TYPE_MASK: u16 = netlink_packet_core::NLA_TYPE_MASK;
    std::iter::from_fn(move || {
        let [a, b, c, d] = *bytes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & TYPE_MASK, value))
    })
}

/// The 32-bit number in host order at an offset.
pub(crate) fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// The value of the first attribute of a kind.
pub(crate) fn attribute(attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes_of(attributes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// Whether the first attribute of a kind is this text with a closing NUL.
pub(crate) fn is_text(attributes: &[u8], wanted: u16, text: &str) -> bool {
    attribute(attributes, wanted).and_then(|bytes| bytes.strip_suffix(b"\0")) == Some(text.as_bytes())
}

/// Text up to its NUL.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// Appends attributes (`struct nlattr`) to a buffer.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
}

impl Writer {
    /// An attribute with a value of bytes.
    pub(crate) fn raw(&mut self, kind: u16, value: &[u8]) {
        self.bytes.reserve(value.len() + 8);
        self.header(kind, value.len());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// Text with a closing NUL.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        self.bytes.reserve(value.len() + 8);
        self.header(kind, value.len() + 1);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    /// A number in network order, as nf_tables has them all.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.numbers([(kind, value)]);
    }

    /// Several such numbers, each with its type.
    pub(crate) fn numbers<const N: usize>(&mut self, all: [(u16, u32); N]) {
        let bytes = all.map(|(kind, value)| {
            let ([a, b], [c, d], [e, f, g, h]) = (8u16.to_ne_bytes(), kind.to_ne_bytes(), value.to_be_bytes());
            [a, b, c, d, e, f, g, h]
        });
        self.bytes.extend_from_slice(bytes.as_flattened());
    }

    /// The same with 64 bits.
    pub(crate) fn u64(&mut self, kind: u16, value: u64) {
        self.header(kind, 8);
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// Length and type of an attribute with a value of so many bytes, which follow.
    pub(crate) fn header(&mut self, kind: u16, value_bytes: usize) {
        let length = u16::try_from(value_bytes + 4).unwrap_or(u16::MAX);
        let ([a, b], [c, d]) = (length.to_ne_bytes(), kind.to_ne_bytes());
        self.bytes.extend_from_slice(&[a, b, c, d]);
    }

    /// Fills up to a multiple of four bytes.
    pub(crate) fn pad(&mut self) {
        let missing = self.bytes.len().wrapping_neg() % 4;
        self.bytes.extend_from_slice([0; 4].get(..missing).unwrap_or_default());
    }

    /// An attribute whose value `fill` writes. NLA_F_NESTED is left out: nf_tables does not ask for it and its own dumps
    /// leave it out, so that what is written equals what is read.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        let [a, b] = kind.to_ne_bytes();
        self.bytes.extend_from_slice(&[0, 0, a, b]);
        fill(self);
        // Callers keep values below 64 KiB: names are at most 255 bytes, elements are sent in small portions.
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX).to_ne_bytes();
        if let Some(place) = self.bytes.get_mut(start..).and_then(<[u8]>::first_chunk_mut) {
            *place = length;
        }
        self.pad();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nests_hold_their_length() {
        let mut writer = Writer::default();
        writer.nest(4, |writer| {
            writer.text(1, "ab");
            writer.u32(2, 7);
        });
        let expected = [20, 0, 4, 0, 7, 0, 1, 0, b'a', b'b', 0, 0, 8, 0, 2, 0, 0, 0, 0, 7];
        assert_eq!(writer.bytes, expected);
    }

    #[test]
    fn text_ends_with_a_nul_and_every_attribute_at_a_multiple_of_four() {
        for (text, padded) in [("", 8), ("abc", 8), ("abcd", 12), ("abcdefg", 12)] {
            let mut writer = Writer::default();
            writer.text(7, text);
            assert_eq!(writer.bytes.len(), padded, "{text}");
            let expected = [text.as_bytes(), &[0]].concat();
            assert_eq!(attribute(&writer.bytes, 7), Some(&expected[..]));
            writer.raw(8, &[1, 2, 3]);
            assert_eq!((attribute(&writer.bytes, 8), writer.bytes.len()), (Some(&[1, 2, 3][..]), padded + 8));
        }
    }

    #[test]
    fn cut_and_misshapen_attributes_end_the_walk() {
        assert_eq!(attributes_of(&[0; 16]).count(), 0);
        assert_eq!(attributes_of(&[0xff; 16]).count(), 0);
        assert_eq!(attributes_of(&[3, 0, 1, 0]).count(), 0);
    }
}
