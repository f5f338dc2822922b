//! The kernel's expressions: what a rule is compiled to.

use super::uapi::{self, bitwise, cmp, data, expr, immediate, list, lookup, range, verdict};
use super::{Family, Field, Reject, Verdict};
use crate::attributes::Writer;
use crate::nft::{Direction, FibResult};

/// The kernel's number for the register that starts at a slot of four bytes: the old one where there is one, as its dumps do.
pub(crate) fn register(slot: u32) -> u32 {
    if slot.is_multiple_of(4) { libc_u32(libc::NFT_REG_1) + slot / 4 } else { libc_u32(libc::NFT_REG32_00) + slot }
}

/// Numbers of the kernel's enums that libc has as a signed type; none is negative but verdicts.
pub(crate) fn libc_u32(number: libc::c_int) -> u32 {
    number.cast_unsigned()
}

/// How an expression begins: the header of its list element (NFTA_LIST_ELEM), its name (NFTA_EXPR_NAME, padded) and the
/// header of its attributes (NFTA_EXPR_DATA). Both lengths are zero until the size of the attributes is known.
pub(crate) type Head<const N: usize> = [u8; N];

/// Makes the head of an expression when compiled: all rules begin their expressions with a handful of names.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which refuses what is out of bounds")]
pub(crate) const fn head<const N: usize>(text: &str) -> Head<N> {
    const HEADER: usize = 4;
    let text = text.as_bytes();
    assert!(N == HEADER + (HEADER + text.len() + 1).next_multiple_of(4) + HEADER, "the head has another length");
    let mut bytes = [0; N];
    #[expect(clippy::cast_possible_truncation, reason = "names of expressions have a dozen bytes")]
    let ([a, b], [c, d]) = ((text.len() as u16 + 5).to_ne_bytes(), expr::NAME.to_ne_bytes());
    [bytes[2], bytes[3]] = list::ELEM.to_ne_bytes();
    [bytes[4], bytes[5], bytes[6], bytes[7]] = [a, b, c, d];
    let mut at = 0;
    while at < text.len() {
        bytes[at + 8] = text[at];
        at += 1;
    }
    [bytes[N - 2], bytes[N - 1]] = expr::DATA.to_ne_bytes();
    bytes
}

const META: Head<20> = head("meta");
const CT: Head<16> = head("ct");
const PAYLOAD: Head<20> = head("payload");
const FIB: Head<16> = head("fib");
const NUMGEN: Head<20> = head("numgen");
const CMP: Head<16> = head("cmp");
const RANGE: Head<20> = head("range");
const BITWISE: Head<20> = head("bitwise");
const IMMEDIATE: Head<24> = head("immediate");
const LOOKUP: Head<20> = head("lookup");

/// Bytes of an attribute with a number of 32 bits.
pub(crate) const NUMBER: usize = 8;

/// Bytes of an attribute with a number of 64 bits.
pub(crate) const LONG: usize = 12;

/// Bytes of an attribute whose value has so many bytes.
pub(crate) fn attribute_bytes(value: usize) -> usize {
    (4 + value).next_multiple_of(4)
}

/// Opens one expression of a rule, whose attributes take so many bytes and follow.
///
/// Lengths are known before, so that nothing is written twice: a wiring has hundreds of expressions.
pub(crate) fn begin<const N: usize>(writer: &mut Writer, head: &Head<N>, bytes: usize) {
    let mut head = *head;
    let length = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_ne_bytes();
    let data = length(4 + bytes);
    if let Some(place) = head.first_chunk_mut() {
        *place = length(N + bytes);
    }
    if let Some([low, high, ..]) = head.last_chunk_mut::<4>() {
        [*low, *high] = data;
    }
    writer.bytes.extend_from_slice(&head);
}

/// The key of a field that `meta` loads.
pub(crate) fn meta_key(field: Field) -> Option<u32> {
    let key = match field {
        Field::Iifname => libc::NFT_META_IIFNAME,
        Field::Oifname => libc::NFT_META_OIFNAME,
        Field::Iifgroup => libc::NFT_META_IIFGROUP,
        Field::L4proto => libc::NFT_META_L4PROTO,
        Field::Nfproto => libc::NFT_META_NFPROTO,
        Field::Protocol => libc::NFT_META_PROTOCOL,
        Field::Mark => libc::NFT_META_MARK,
        Field::Pkttype => libc::NFT_META_PKTTYPE,
        Field::Meta { key } => return Some(key),
        _ => return None,
    };
    Some(libc_u32(key))
}

/// The key of a field that `ct` loads, and the direction (IP_CT_DIR_ORIGINAL) where it has one.
pub(crate) fn ct_key(field: Field) -> Option<(u32, Option<u8>)> {
    let (key, direction) = match field {
        Field::CtState => (libc::NFT_CT_STATE, None),
        Field::CtStatus => (libc::NFT_CT_STATUS, None),
        Field::CtMark => (libc::NFT_CT_MARK, None),
        Field::CtDirection => (libc::NFT_CT_DIRECTION, None),
        Field::CtOriginalIpDaddr => (libc::NFT_CT_DST_IP, Some(0)),
        Field::CtOriginalIp6Daddr => (libc::NFT_CT_DST_IP6, Some(0)),
        Field::Conntrack { key } => return Some((key, None)),
        _ => return None,
    };
    Some((libc_u32(key), direction))
}

/// Loads a field into the registers from `slot` on.
pub(crate) fn load(writer: &mut Writer, field: Field, slot: u32) {
    if let Some(key) = meta_key(field) {
        begin(writer, &META, 2 * NUMBER);
        writer.numbers([(uapi::meta::KEY, key), (uapi::meta::DREG, register(slot))]);
    } else if let Some((key, direction)) = ct_key(field) {
        begin(writer, &CT, 2 * NUMBER + direction.map_or(0, |_| attribute_bytes(1)));
        writer.numbers([(uapi::ct::KEY, key), (uapi::ct::DREG, register(slot))]);
        if let Some(direction) = direction {
            writer.raw(uapi::ct::DIRECTION, &[direction]);
        }
    } else if let Some(place) = place(field) {
        begin(writer, &PAYLOAD, 4 * NUMBER);
        writer.numbers([
            (uapi::payload::DREG, register(slot)),
            (uapi::payload::BASE, place.base),
            (uapi::payload::OFFSET, place.offset),
            (uapi::payload::LEN, place.bytes),
        ]);
    } else {
        load_computed(writer, field, slot);
    }
}

/// Loads what the kernel computes.
fn load_computed(writer: &mut Writer, field: Field, slot: u32) {
    let (kind, modulus) = match field {
        Field::Random { modulus } => (libc::NFT_NG_RANDOM, modulus),
        Field::RoundRobin { modulus } => (libc::NFT_NG_INCREMENTAL, modulus),
        Field::Fib { address, result } => {
            begin(writer, &FIB, 3 * NUMBER);
            writer.numbers([(uapi::fib::DREG, register(slot)), (uapi::fib::RESULT, fib_result(result))]);
            return writer.u32(uapi::fib::FLAGS, fib_flags(address));
        }
        _ => return,
    };
    begin(writer, &NUMGEN, 3 * NUMBER);
    writer.numbers([
        (uapi::numgen::DREG, register(slot)),
        (uapi::numgen::MODULUS, modulus),
        (uapi::numgen::TYPE, libc_u32(kind)),
    ]);
}

/// NFT_FIB_RESULT_* of `linux/netfilter/nf_tables.h`.
pub(crate) fn fib_result(result: FibResult) -> u32 {
    match result {
        FibResult::Oif => uapi::FIB_OIF,
        FibResult::AddressKind => uapi::FIB_ADDRTYPE,
    }
}

/// NFTA_FIB_F_* of `linux/netfilter/nf_tables.h`.
pub(crate) fn fib_flags(address: Direction) -> u32 {
    match address {
        Direction::Source => uapi::FIB_SADDR,
        Direction::Destination => uapi::FIB_DADDR,
    }
}

/// Where in the packet a field is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) base: u32,
    pub(crate) offset: u32,
    pub(crate) bytes: u32,
}

/// RFC 791 §3.1, RFC 8200 §3, RFC 9293 §3.1, RFC 768, RFC 792, RFC 4443 §2.1, RFC 4861 §4.3, RFC 826, IEEE 802.3 §3.2.
pub(crate) fn place(field: Field) -> Option<Place> {
    const LINK: libc::c_int = libc::NFT_PAYLOAD_LL_HEADER;
    const NETWORK: libc::c_int = libc::NFT_PAYLOAD_NETWORK_HEADER;
    const TRANSPORT: libc::c_int = libc::NFT_PAYLOAD_TRANSPORT_HEADER;
    let (base, offset) = match field {
        Field::EtherDaddr => (LINK, 0),
        Field::EtherSaddr => (LINK, 6),
        Field::EtherType => (LINK, 12),
        Field::IpSaddr => (NETWORK, 12),
        Field::IpDaddr => (NETWORK, 16),
        Field::Ip6Saddr => (NETWORK, 8),
        Field::Ip6Daddr => (NETWORK, 24),
        Field::ArpOperation => (NETWORK, 6),
        Field::ArpSenderEther => (NETWORK, 8),
        Field::ArpSenderIp => (NETWORK, 14),
        Field::ArpTargetIp => (NETWORK, 24),
        Field::TcpSport | Field::UdpSport | Field::ThSport | Field::IcmpType | Field::Icmpv6Type => (TRANSPORT, 0),
        Field::TcpDport | Field::UdpDport | Field::ThDport => (TRANSPORT, 2),
        Field::TcpFlags => (TRANSPORT, 13),
        Field::NdTarget => (TRANSPORT, 8),
        Field::Payload { base, offset, bytes } => return Some(Place { base, offset, bytes }),
        _ => return None,
    };
    let bytes = u32::try_from(field.encoding().bytes()).ok()?;
    Some(Place { base: libc_u32(base), offset, bytes })
}

impl Field {
    /// Whether it is part of the packet itself, not what the kernel knows of it.
    #[must_use]
    pub fn is_in_packet(self) -> bool {
        place(self).is_some()
    }
}

/// Kind and code of a refusal (NFTA_REJECT_*) in a family's tables.
pub(crate) fn reject_code(family: Family, how: Reject) -> (u32, u8) {
    // Codes of RFC 792 and RFC 4443 §3.1; the icmpx ones are the kernel's, which picks by the packet's family.
    let by_family = |icmpx: libc::c_int, v4: u8, v6: u8| match family {
        Family::Ip => (libc::NFT_REJECT_ICMP_UNREACH, v4),
        Family::Ip6 => (libc::NFT_REJECT_ICMP_UNREACH, v6),
        _ => (libc::NFT_REJECT_ICMPX_UNREACH, icmpx.to_le_bytes()[0]),
    };
    let (kind, code) = match how {
        Reject::PortUnreachable => by_family(libc::NFT_REJECT_ICMPX_PORT_UNREACH, 3, 4),
        Reject::AdminProhibited => by_family(libc::NFT_REJECT_ICMPX_ADMIN_PROHIBITED, 13, 1),
        Reject::TcpReset => (libc::NFT_REJECT_TCP_RST, 0),
    };
    (libc_u32(kind), code)
}

/// Kind and offset of the checksum that covers a field, and the flags of its update (NFTA_PAYLOAD_CSUM_*).
///
/// The IPv4 header has a checksum (RFC 791 §3.1, at byte 10); transport checksums cover the addresses of both IP versions.
pub(crate) fn checksum(field: Field) -> (u32, u32, u32) {
    match field {
        Field::IpSaddr | Field::IpDaddr => (libc_u32(libc::NFT_PAYLOAD_CSUM_INET), 10, uapi::CSUM_PSEUDO_HEADER),
        Field::Ip6Saddr | Field::Ip6Daddr => (0, 0, uapi::CSUM_PSEUDO_HEADER),
        _ => (0, 0, 0),
    }
}

/// Compares a register with bytes; `op` is one of NFT_CMP_*.
pub(crate) fn compare(writer: &mut Writer, slot: u32, op: libc::c_int, bytes: &[u8]) {
    begin(writer, &CMP, 2 * NUMBER + value_bytes(bytes));
    writer.numbers([(cmp::SREG, register(slot)), (cmp::OP, libc_u32(op))]);
    value(writer, cmp::DATA, bytes);
}

/// Goes on if a register is between two values, both included.
pub(crate) fn between(writer: &mut Writer, slot: u32, from: &[u8], to: &[u8]) {
    begin(writer, &RANGE, 2 * NUMBER + value_bytes(from) + value_bytes(to));
    writer.numbers([(range::SREG, register(slot)), (range::OP, libc_u32(libc::NFT_RANGE_EQ))]);
    value(writer, range::FROM, from);
    value(writer, range::TO, to);
}

/// Keeps the bits of a mask in a register.
pub(crate) fn mask(writer: &mut Writer, slot: u32, mask: &[u8]) {
    begin(writer, &BITWISE, 4 * NUMBER + 2 * value_bytes(mask));
    let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
    // NFT_BITWISE_BOOL, which is the default: the kernel lists it, and older ones ignore it.
    let operation = (bitwise::OP, 0);
    let (from, to) = ((bitwise::SREG, register(slot)), (bitwise::DREG, register(slot)));
    writer.numbers([from, to, (bitwise::LEN, length), operation]);
    value(writer, bitwise::MASK, mask);
    value(writer, bitwise::XOR, zeroes(mask.len()));
}

/// So many zeroes, as many as the longest field has bytes.
pub(crate) fn zeroes(bytes: usize) -> &'static [u8] {
    [0; 16].get(..bytes).unwrap_or(&[0; 16])
}

/// Loads bytes into a register.
pub(crate) fn constant(writer: &mut Writer, slot: u32, bytes: &[u8]) {
    begin(writer, &IMMEDIATE, NUMBER + value_bytes(bytes));
    writer.u32(immediate::DREG, register(slot));
    value(writer, immediate::DATA, bytes);
}

/// Writes a verdict (`immediate` into the verdict register).
pub(crate) fn decide(writer: &mut Writer, verdict: &Verdict) {
    let (_, chain) = code(verdict);
    let inside = 4 + NUMBER + chain.map_or(0, |chain| attribute_bytes(chain.len() + 1));
    begin(writer, &IMMEDIATE, NUMBER + 4 + inside);
    writer.u32(immediate::DREG, libc_u32(libc::NFT_REG_VERDICT));
    writer.header(immediate::DATA, inside);
    verdict_data(writer, verdict);
}

/// A set that a rule looks something up in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SetRef<'a> {
    pub(crate) name: &'a str,
    /// For a set made on the fly, whose name the kernel chooses.
    pub(crate) id: Option<u32>,
}

/// Looks up the registers from slot 0 on; `into` receives what a map yields.
pub(crate) fn look_up(writer: &mut Writer, set: &SetRef<'_>, into: Option<u32>, negate: bool) {
    let optional = usize::from(set.id.is_some()) + usize::from(into.is_some());
    begin(writer, &LOOKUP, attribute_bytes(set.name.len() + 1) + NUMBER * (2 + optional));
    writer.text(lookup::SET, set.name);
    if let Some(id) = set.id {
        writer.u32(lookup::SET_ID, id);
    }
    writer.u32(lookup::SREG, register(0));
    if let Some(register) = into {
        writer.u32(lookup::DREG, register);
    }
    // Zero would mean the same as absent, but the kernel lists it: CHECK compares bytes first.
    writer.u32(lookup::FLAGS, negate.into());
}

/// An attribute that holds a value (struct nft_data). Most values have one, two, four or 16 bytes.
pub(crate) fn value(writer: &mut Writer, kind: u16, bytes: &[u8]) {
    match *bytes {
        [a] => short_value(writer, kind, 1, [a, 0, 0, 0]),
        [a, b] => short_value(writer, kind, 2, [a, b, 0, 0]),
        [a, b, c, d] => short_value(writer, kind, 4, [a, b, c, d]),
        _ => match bytes.first_chunk::<16>() {
            Some(all) if bytes.len() == 16 => short_value(writer, kind, 16, *all),
            _ => {
                writer.header(kind, attribute_bytes(bytes.len()));
                writer.raw(data::VALUE, bytes);
            }
        },
    }
}

/// Such an attribute with a value of `length` bytes, which are padded already, written at once.
fn short_value<const N: usize>(writer: &mut Writer, kind: u16, length: u16, padded: [u8; N]) {
    let header = |kind: u16, length: u16| {
        let ([a, b], [c, d]) = (length.to_ne_bytes(), kind.to_ne_bytes());
        [a, b, c, d]
    };
    let outer = u16::try_from(8 + N).unwrap_or(u16::MAX);
    let headers = [header(kind, outer), header(data::VALUE, 4 + length)];
    writer.bytes.reserve(8 + N);
    writer.bytes.extend_from_slice(headers.as_flattened());
    writer.bytes.extend_from_slice(&padded);
}

/// The bytes of such an attribute.
fn value_bytes(bytes: &[u8]) -> usize {
    4 + attribute_bytes(bytes.len())
}

/// A verdict inside an attribute that holds data.
pub(crate) fn verdict_data(writer: &mut Writer, what: &Verdict) {
    let (code, chain) = code(what);
    writer.header(data::VERDICT, NUMBER + chain.map_or(0, |chain| attribute_bytes(chain.len() + 1)));
    writer.u32(verdict::CODE, code.cast_unsigned());
    if let Some(chain) = chain {
        writer.text(verdict::CHAIN, chain);
    }
}

/// NF_* or NFT_*, and the chain that it leads to.
fn code(verdict: &Verdict) -> (libc::c_int, Option<&str>) {
    match verdict {
        Verdict::Accept => (libc::NF_ACCEPT, None),
        Verdict::Drop => (libc::NF_DROP, None),
        Verdict::Return => (libc::NFT_RETURN, None),
        Verdict::Continue => (libc::NFT_CONTINUE, None),
        Verdict::Jump(chain) => (libc::NFT_JUMP, Some(chain)),
        Verdict::Goto(chain) => (libc::NFT_GOTO, Some(chain)),
    }
}
