//! The attributes of one expression.

use super::super::expression::libc_u32;
use super::super::uapi::{self, data};
use crate::attributes::{attribute, attributes_of};

/// The attributes of an expression (NFTA_EXPR_DATA). One that is absent and one that is zero mean the same to nf_tables.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Attributes<'a> {
    pub(super) fn bytes(self, kind: u16) -> Option<&'a [u8]> {
        attribute(self.0, kind)
    }

    /// A number of 32 bits; 0 if it is absent.
    pub(super) fn number(self, kind: u16) -> u32 {
        self.bytes(kind).and_then(|bytes| bytes.first_chunk().copied()).map_or(0, u32::from_be_bytes)
    }

    /// A number of 64 bits; 0 if it is absent.
    pub(super) fn long(self, kind: u16) -> u64 {
        self.bytes(kind).and_then(|bytes| bytes.first_chunk().copied()).map_or(0, u64::from_be_bytes)
    }

    /// The bytes of a constant (NFTA_DATA_VALUE); `None` if it is absent or a verdict.
    pub(super) fn value(self, kind: u16) -> Option<&'a [u8]> {
        attribute(self.bytes(kind)?, data::VALUE)
    }

    /// The slot of four bytes where a register begins; `None` for the verdict's.
    pub(super) fn slot(self, kind: u16) -> Option<u32> {
        let register = self.number(kind);
        let (first, first_small) = (libc_u32(libc::NFT_REG_1), libc_u32(libc::NFT_REG32_00));
        match register.checked_sub(first_small) {
            Some(slot @ 0..16) => Some(slot),
            Some(_) => None,
            None => register.checked_sub(first).filter(|number| *number < 4).map(|number| number * 4),
        }
    }

    /// Whether two registers are the ends of a range. The upper one is absent, or the lower one again, if there is none.
    pub(super) fn is_range(self, lower: u16, upper: u16) -> bool {
        let upper = self.number(upper);
        upper != 0 && upper != self.number(lower)
    }

    /// Whether a register is the verdict's.
    pub(super) fn is_verdict(self, kind: u16) -> bool {
        self.number(kind) == libc_u32(libc::NFT_REG_VERDICT)
    }

    /// Whether the expression has no attributes but these, apart from those that are zero.
    pub(super) fn only(self, known: &[u16]) -> Option<()> {
        attributes_of(self.0)
            .all(|(kind, value)| known.contains(&kind) || value.iter().all(|byte| *byte == 0))
            .then_some(())
    }

    /// Whether a `meta`, `ct` or `payload` writes what it names.
    pub(super) fn is_write(self, name: &[u8]) -> bool {
        let source = match name {
            b"meta" => uapi::meta::SREG,
            b"ct" => uapi::ct::SREG,
            _ => uapi::payload::SREG,
        };
        self.bytes(source).is_some()
    }
}
