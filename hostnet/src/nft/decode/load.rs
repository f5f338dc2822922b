//! Expressions that load a register.

use super::super::element_bytes::{EncodedData, decode_data};
use super::super::expression::{ct_key, fib_flags, fib_result, libc_u32, meta_key, place};
use super::super::presupposition::is_in_family;
use super::super::uapi::{bitwise, ct, fib, immediate, meta, numgen, payload};
use super::super::{Direction, FibResult, Field, Statement};
use super::attributes::Attributes;
use super::{Content, Decoder, is_whole};

/// The fields that `meta` loads.
const META: [Field; 8] = [
    Field::Iifname,
    Field::Oifname,
    Field::Iifgroup,
    Field::L4proto,
    Field::Nfproto,
    Field::Protocol,
    Field::Mark,
    Field::Pkttype,
];

/// The fields that `ct` loads.
const CONNTRACK: [Field; 6] = [
    Field::CtState,
    Field::CtStatus,
    Field::CtMark,
    Field::CtDirection,
    Field::CtOriginalIpDaddr,
    Field::CtOriginalIp6Daddr,
];

/// The fields that `payload` loads. Of several at one place the first counts whose presupposition is met.
const PAYLOAD: [Field; 21] = [
    Field::EtherSaddr,
    Field::EtherDaddr,
    Field::EtherType,
    Field::IpSaddr,
    Field::IpDaddr,
    Field::Ip6Saddr,
    Field::Ip6Daddr,
    Field::ArpOperation,
    Field::ArpSenderEther,
    Field::ArpSenderIp,
    Field::ArpTargetIp,
    Field::TcpSport,
    Field::TcpDport,
    Field::TcpFlags,
    Field::UdpSport,
    Field::UdpDport,
    Field::IcmpType,
    Field::Icmpv6Type,
    Field::NdTarget,
    Field::ThSport,
    Field::ThDport,
];

impl Decoder<'_, '_> {
    pub(super) fn load_meta(&mut self, inside: Attributes<'_>) -> Option<()> {
        inside.only(&[meta::KEY, meta::DREG])?;
        let key = inside.number(meta::KEY);
        let field = META.into_iter().find(|field| meta_key(*field) == Some(key)).unwrap_or(Field::Meta { key });
        self.load(inside.slot(meta::DREG)?, field, field.encoding().bytes());
        Some(())
    }

    pub(super) fn load_ct(&mut self, inside: Attributes<'_>) -> Option<()> {
        inside.only(&[ct::KEY, ct::DREG, ct::DIRECTION])?;
        let key = inside.number(ct::KEY);
        let direction = inside.bytes(ct::DIRECTION).and_then(|bytes| bytes.first().copied());
        let field = CONNTRACK.into_iter().find(|field| ct_key(*field) == Some((key, direction)));
        let field = field.or(direction.is_none().then_some(Field::Conntrack { key }))?;
        self.load(inside.slot(ct::DREG)?, field, field.encoding().bytes());
        Some(())
    }

    pub(super) fn load_payload(&mut self, inside: Attributes<'_>) -> Option<()> {
        inside.only(&[payload::DREG, payload::BASE, payload::OFFSET, payload::LEN])?;
        let (base, offset, bytes) =
            (inside.number(payload::BASE), inside.number(payload::OFFSET), inside.number(payload::LEN));
        let loaded = usize::try_from(bytes).ok().filter(|bytes| (1..=64).contains(bytes))?;
        let is_it = |field: &Field| {
            let at = place(*field).is_some_and(|place| (place.base, place.offset) == (base, offset));
            at && (is_whole(*field, loaded) || is_prefix(*field, loaded))
                && is_in_family(self.context.family, *field)
                && self.is_usable(*field)
        };
        let field = PAYLOAD.into_iter().find(is_it).unwrap_or(Field::Payload { base, offset, bytes });
        self.load(inside.slot(payload::DREG)?, field, loaded);
        Some(())
    }

    pub(super) fn load_fib(&mut self, inside: Attributes<'_>) -> Option<()> {
        inside.only(&[fib::DREG, fib::RESULT, fib::FLAGS])?;
        let address = [Direction::Source, Direction::Destination]
            .into_iter()
            .find(|address| fib_flags(*address) == inside.number(fib::FLAGS))?;
        let result = [FibResult::Oif, FibResult::AddressKind]
            .into_iter()
            .find(|result| fib_result(*result) == inside.number(fib::RESULT))?;
        let field = Field::Fib { address, result };
        self.load(inside.slot(fib::DREG)?, field, field.encoding().bytes());
        Some(())
    }

    pub(super) fn load_number(&mut self, inside: Attributes<'_>) -> Option<()> {
        inside.only(&[numgen::DREG, numgen::MODULUS, numgen::TYPE])?;
        let modulus = inside.number(numgen::MODULUS);
        let field = match inside.number(numgen::TYPE) {
            kind if kind == libc_u32(libc::NFT_NG_RANDOM) => Field::Random { modulus },
            kind if kind == libc_u32(libc::NFT_NG_INCREMENTAL) => Field::RoundRobin { modulus },
            _ => return None,
        };
        self.load(inside.slot(numgen::DREG)?, field, field.encoding().bytes());
        Some(())
    }

    fn load(&mut self, slot: u32, field: Field, bytes: usize) {
        self.put(slot, Content::Field { field, bytes, mask: None });
    }

    /// Keeps the bits of a mask in a register; other operations are other programs'.
    pub(super) fn mask(&mut self, inside: Attributes<'_>) -> Option<()> {
        inside.only(&[bitwise::SREG, bitwise::DREG, bitwise::LEN, bitwise::MASK, bitwise::XOR])?;
        let slot = inside.slot(bitwise::SREG).filter(|slot| inside.slot(bitwise::DREG) == Some(*slot))?;
        let mask = inside.value(bitwise::MASK)?;
        let is_plain = inside.value(bitwise::XOR).is_some_and(|bits| bits.iter().all(|byte| *byte == 0))
            && usize::try_from(inside.number(bitwise::LEN)) == Ok(mask.len());
        match self.take(slot)? {
            Content::Field { field, bytes, mask: None } if is_plain && bytes == mask.len() => {
                self.put(slot, Content::Field { field, bytes, mask: Some(mask.to_vec()) });
                Some(())
            }
            _ => None,
        }
    }

    /// A constant for a register, or a verdict.
    pub(super) fn immediate(&mut self, inside: Attributes<'_>) -> Option<()> {
        inside.only(&[immediate::DREG, immediate::DATA])?;
        match decode_data(inside.bytes(immediate::DATA)?)? {
            EncodedData::Value(bytes) => self.put(inside.slot(immediate::DREG)?, Content::Constant(bytes)),
            EncodedData::Verdict(verdict) if inside.is_verdict(immediate::DREG) => {
                self.statements.push(Statement::Verdict(verdict));
            }
            EncodedData::Verdict(_) => return None,
        }
        Some(())
    }
}

/// Whether so many bytes are the beginning of an address: `nft` loads no more of it than a network's prefix needs.
fn is_prefix(field: Field, bytes: usize) -> bool {
    matches!(field, Field::IpSaddr | Field::IpDaddr | Field::Ip6Saddr | Field::Ip6Daddr)
        && bytes < field.encoding().bytes()
}
