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
        self.nest(kind, |writer| writer.bytes.extend_from_slice(value));
    }

    /// Text with a closing NUL.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        self.nest(kind, |writer| {
            writer.bytes.extend_from_slice(value.as_bytes());
            writer.bytes.push(0);
        });
    }

    /// A number in network order, as nf_tables has them all.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.raw(kind, &value.to_be_bytes());
    }

    /// The same with 64 bits.
    pub(crate) fn u64(&mut self, kind: u16, value: u64) {
        self.raw(kind, &value.to_be_bytes());
    }

    /// An attribute whose value `fill` writes. NLA_F_NESTED is left out: nf_tables does not ask for it and its own dumps
    /// leave it out, so that what is written equals what is read.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        fill(self);
        // Callers keep values below 64 KiB: names are at most 255 bytes, elements are sent in small portions.
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX).to_ne_bytes();
        if let Some(place) = self.bytes.get_mut(start..start + 2) {
            place.copy_from_slice(&length);
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
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
    fn cut_and_misshapen_attributes_end_the_walk() {
        assert_eq!(attributes_of(&[0; 16]).count(), 0);
        assert_eq!(attributes_of(&[0xff; 16]).count(), 0);
        assert_eq!(attributes_of(&[3, 0, 1, 0]).count(), 0);
    }
}
