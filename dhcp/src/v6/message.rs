//! Messages and options (RFC 8415 §8, §21.1): a type, a transaction, and options that may hold options.

use super::codes;
use crate::bytes::Bytes;

/// Options of a message or of an option, in their order.
#[derive(Debug)]
pub(super) struct Options<'a>(Vec<(u16, &'a [u8])>);

impl<'a> Options<'a> {
    /// `None` when one is cut short.
    pub(super) fn parse(area: &'a [u8]) -> Option<Self> {
        let mut bytes = Bytes::new(area);
        let mut options = Vec::new();
        while !bytes.is_empty() {
            let code = bytes.u16()?;
            let length = bytes.u16()?;
            options.push((code, bytes.take(usize::from(length))?));
        }
        Some(Self(options))
    }

    pub(super) fn first(&self, code: u16) -> Option<&'a [u8]> {
        self.all(code).next()
    }

    pub(super) fn all(&self, code: u16) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |(known, _)| *known == code).map(|(_, value)| *value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, &'a [u8])> {
        self.0.iter().copied()
    }
}

/// A client's message.
#[derive(Debug)]
pub(super) struct Message<'a> {
    pub(super) kind: u8,
    pub(super) transaction: [u8; 3],
    pub(super) options: Options<'a>,
}

impl<'a> Message<'a> {
    /// `None` when it or one of its options is cut short.
    pub(super) fn parse(payload: &'a [u8]) -> Option<Self> {
        let mut bytes = Bytes::new(payload);
        let kind = bytes.u8()?;
        let transaction = bytes.array()?;
        Some(Self { kind, transaction, options: Options::parse(bytes.rest())? })
    }

    /// The codes of the Option Request option (RFC 8415 §21.7); `None` without one.
    pub(super) fn option_request(&self) -> Option<Vec<u16>> {
        let list = self.options.first(codes::OPTION_REQUEST)?;
        Some(list.chunks_exact(2).filter_map(|pair| pair.try_into().ok()).map(u16::from_be_bytes).collect())
    }
}

/// A server's message under construction; what does not fit is left out.
#[derive(Debug)]
pub(super) struct Writer {
    wire: Vec<u8>,
    room: usize,
}

impl Writer {
    pub(super) fn new(kind: u8, transaction: [u8; 3], room: usize) -> Self {
        let [a, b, c] = transaction;
        Self { wire: vec![kind, a, b, c], room }
    }

    pub(super) fn option(&mut self, code: u16, value: &[u8]) {
        if self.wire.len() + 4 + value.len() <= self.room {
            push_option(&mut self.wire, code, value);
        }
    }

    /// Bytes an option's value may still have.
    pub(super) fn left(&self) -> usize {
        self.room.saturating_sub(self.wire.len() + 4)
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.wire
    }
}

/// Values are bounded by the writer's room; a longer one is left out.
pub(super) fn push_option(wire: &mut Vec<u8>, code: u16, value: &[u8]) {
    if let Ok(length) = u16::try_from(value.len()) {
        wire.extend(code.to_be_bytes());
        wire.extend(length.to_be_bytes());
        wire.extend(value);
    }
}

/// The value of a status option (RFC 8415 §21.13).
pub(super) fn status(code: u16, text: &str) -> Vec<u8> {
    [&code.to_be_bytes(), text.as_bytes()].concat()
}
