//! From a rule's statements to the kernel's expressions.

use std::net::IpAddr;

use terms::IfName;

use super::expression::{self, SetRef, constant, decide, expression, libc_u32, load, look_up, register};
use super::shape::{NftError, Shape, pad};
use super::uapi;
use super::writer::Writer;
use super::{
    Element, ElementData, ElementKey, Family, Field, IpVersion, NatTarget, Reject, Remember, Rule, Set, SetData,
    Statement, Test, Value, Verdict, VerdictMap,
};

/// What compiling a rule needs of its surroundings.
pub(crate) trait Surroundings {
    /// The index of a link.
    fn link_index(&mut self, link: &IfName) -> Result<u32, NftError>;

    /// Makes a set without a name and says how to refer to it.
    fn unnamed_set(&mut self, set: Set) -> Result<SetRef, NftError>;
}

/// Writes a rule's expressions.
pub(crate) fn compile(
    writer: &mut Writer,
    family: Family,
    rule: &Rule,
    around: &mut dyn Surroundings,
) -> Result<(), NftError> {
    let mut compiler = Compiler { writer, family, known: Vec::new(), around };
    rule.statements.iter().try_for_each(|statement| compiler.statement(statement))
}

struct Compiler<'a> {
    writer: &'a mut Writer,
    family: Family,
    /// What earlier tests of the rule established.
    known: Vec<(Field, Vec<u8>)>,
    around: &'a mut dyn Surroundings,
}

impl Compiler<'_> {
    fn statement(&mut self, statement: &Statement) -> Result<(), NftError> {
        match statement {
            Statement::Match { fields, test } => self.test(fields, test)?,
            Statement::Counter => expression(self.writer, "counter", |writer| {
                writer.u64(uapi::counter::BYTES, 0);
                writer.u64(uapi::counter::PACKETS, 0);
            }),
            Statement::Verdict(verdict) => decide(self.writer, verdict),
            Statement::VerdictMap { fields, map } => {
                let map = self.verdict_map(fields, map)?;
                self.key(fields)?;
                look_up(self.writer, &map, Some(libc_u32(libc::NFT_REG_VERDICT)), false);
            }
            Statement::Set { field, value } => self.set(*field, value)?,
            Statement::Masquerade => expression(self.writer, "masq", |_| {}),
            Statement::Dnat { version, to } => self.nat(libc::NFT_NAT_DNAT, *version, to)?,
            Statement::Snat { version, to } => self.nat(libc::NFT_NAT_SNAT, *version, to)?,
            Statement::Redirect { port } => self.redirect(*port),
            Statement::Forward { to } => self.by_device("fwd", uapi::fwd::SREG_DEV, to)?,
            Statement::Duplicate { to } => self.by_device("dup", uapi::dup::SREG_DEV, to)?,
            Statement::Reject(how) => self.reject(*how),
            Statement::Notrack => expression(self.writer, "notrack", |_| {}),
            Statement::Remember(remember) => self.remember(remember)?,
        }
        Ok(())
    }

    /// Tests what a field presupposes, unless the rule has done so.
    fn presuppose(&mut self, field: Field) {
        let routed = matches!(self.family, Family::Inet | Family::Ip | Family::Ip6);
        let framed = matches!(self.family, Family::Bridge | Family::Netdev);
        let ethertype = |number: u16| Some((Field::Protocol, number.to_be_bytes().to_vec()));
        let version = |number: u8| Some((Field::Nfproto, vec![number]));
        let transport = |number: u8| Some((Field::L4proto, vec![number]));
        let needed = match field {
            // ETH_P_* of `linux/if_ether.h`, NFPROTO_* of `linux/netfilter.h`.
            Field::IpSaddr | Field::IpDaddr if framed => ethertype(0x0800),
            Field::Ip6Saddr | Field::Ip6Daddr if framed => ethertype(0x86dd),
            Field::IpSaddr | Field::IpDaddr if self.family == Family::Inet => version(2),
            Field::Ip6Saddr | Field::Ip6Daddr if self.family == Family::Inet => version(10),
            Field::ArpOperation | Field::ArpSenderEther | Field::ArpSenderIp | Field::ArpTargetIp if framed => {
                ethertype(0x0806)
            }
            Field::TcpSport | Field::TcpDport | Field::TcpFlags => transport(6),
            Field::UdpSport | Field::UdpDport => transport(17),
            Field::IcmpType => transport(1),
            Field::Icmpv6Type | Field::NdTarget => transport(58),
            // A link-layer header must be an Ethernet one (ARPHRD_ETHER).
            Field::EtherSaddr | Field::EtherDaddr | Field::EtherType if routed => {
                expression(self.writer, "meta", |writer| {
                    writer.u32(uapi::meta::KEY, libc_u32(libc::NFT_META_IIFTYPE));
                    writer.u32(uapi::meta::DREG, register(0));
                });
                expression::compare(self.writer, 0, libc::NFT_CMP_EQ, &libc::ARPHRD_ETHER.to_ne_bytes());
                None
            }
            _ => None,
        };
        if let Some((field, bytes)) = needed
            && !self.known.contains(&(field, bytes.clone()))
        {
            load(self.writer, field, 0);
            expression::compare(self.writer, 0, libc::NFT_CMP_EQ, &bytes);
            self.known.push((field, bytes));
        }
    }

    /// Loads fields one after another from slot 0 on.
    fn key(&mut self, fields: &[Field]) -> Result<(), NftError> {
        // All presuppositions first: they use the same registers.
        fields.iter().for_each(|field| self.presuppose(*field));
        let mut slot = 0;
        for field in fields {
            load(self.writer, *field, slot);
            slot += field.shape().slots();
        }
        // NFT_REG32_COUNT registers of four bytes.
        if slot > 16 { Err(NftError::Other(format!("the key {fields:?} is longer than 64 bytes"))) } else { Ok(()) }
    }

    fn test(&mut self, fields: &[Field], test: &Test) -> Result<(), NftError> {
        if let Test::InSet(set) | Test::NotInSet(set) = test {
            self.key(fields)?;
            let set = SetRef { name: set.clone(), id: None };
            look_up(self.writer, &set, None, matches!(test, Test::NotInSet(_)));
            return Ok(());
        }
        let [field] = fields else {
            return Err(NftError::Other(format!("several fields {fields:?} can only be tested against a named set")));
        };
        self.lone_test(*field, field.shape(), test)
    }

    fn lone_test(&mut self, field: Field, shape: Shape, test: &Test) -> Result<(), NftError> {
        let encode = |value: &Value| shape.encode(value, &field);
        if let Test::OneOf(values) | Test::NoneOf(values) = test {
            return self.one_of(field, values, matches!(test, Test::NoneOf(_)));
        }
        self.presuppose(field);
        load(self.writer, field, 0);
        let compare = |writer: &mut Writer, negate: bool, bytes: &[u8]| {
            let op = if negate { libc::NFT_CMP_NEQ } else { libc::NFT_CMP_EQ };
            expression::compare(writer, 0, op, bytes);
        };
        let zero = || vec![0; shape.bytes()];
        match test {
            Test::Is(value) => {
                let bytes = encode(value)?;
                compare(self.writer, false, &bytes);
                self.known.push((field, bytes));
            }
            Test::IsNot(value) => compare(self.writer, true, &encode(value)?),
            Test::Within(network) | Test::NotWithin(network) => {
                let (address, mask) = shape.network(*network, &field)?;
                if mask.iter().any(|byte| *byte != 0xff) {
                    expression::mask(self.writer, 0, &mask);
                }
                compare(self.writer, matches!(test, Test::NotWithin(_)), &address);
            }
            Test::Range(from, to) => expression::between(self.writer, 0, &encode(from)?, &encode(to)?),
            Test::AnyBit(bits) | Test::NoBit(bits) => {
                expression::mask(self.writer, 0, &shape.mask(*bits, &field)?);
                compare(self.writer, matches!(test, Test::AnyBit(_)), &zero());
            }
            Test::Bits { mask, value } => {
                expression::mask(self.writer, 0, &shape.mask(*mask, &field)?);
                compare(self.writer, false, &shape.mask(*value, &field)?);
            }
            // Handled before anything was written.
            Test::OneOf(_) | Test::NoneOf(_) | Test::InSet(_) | Test::NotInSet(_) => {}
        }
        Ok(())
    }

    fn one_of(&mut self, field: Field, values: &[Value], negate: bool) -> Result<(), NftError> {
        match values {
            [] => Err(NftError::Other(format!("{field:?} is compared with an empty list"))),
            [only] if negate => self.lone_test(field, field.shape(), &Test::IsNot(only.clone())),
            [only] => self.lone_test(field, field.shape(), &Test::Is(only.clone())),
            values => {
                let mut set = Set::new("__set%d", [field.kind()]);
                set.elements = values.iter().map(|value| Element::of([value.clone()])).collect();
                let set = self.around.unnamed_set(set)?;
                self.presuppose(field);
                load(self.writer, field, 0);
                look_up(self.writer, &set, None, negate);
                Ok(())
            }
        }
    }

    fn verdict_map(&mut self, fields: &[Field], map: &VerdictMap) -> Result<SetRef, NftError> {
        match map {
            VerdictMap::Named(name) => Ok(SetRef { name: name.clone(), id: None }),
            VerdictMap::Inline(pairs) => {
                let mut set = Set::verdict_map("__map%d", fields.iter().map(|field| field.kind()));
                set.elements = pairs.iter().map(element).collect();
                self.around.unnamed_set(set)
            }
        }
    }

    fn set(&mut self, field: Field, value: &Value) -> Result<(), NftError> {
        let bytes = field.shape().encode(value, &field)?;
        let place = expression::place(field);
        let writable = matches!(
            field,
            Field::Mark
                | Field::CtMark
                | Field::EtherSaddr
                | Field::EtherDaddr
                | Field::IpSaddr
                | Field::IpDaddr
                | Field::Ip6Saddr
                | Field::Ip6Daddr
        );
        if !writable {
            return Err(NftError::Other(format!("{field:?} cannot be written")));
        }
        self.presuppose(field);
        constant(self.writer, 0, &bytes);
        let Some(place) = place else {
            let (name, key_kind, key, source) = match field {
                Field::CtMark => ("ct", uapi::ct::KEY, libc::NFT_CT_MARK, uapi::ct::SREG),
                _ => ("meta", uapi::meta::KEY, libc::NFT_META_MARK, uapi::meta::SREG),
            };
            expression(self.writer, name, |writer| {
                writer.u32(key_kind, libc_u32(key));
                writer.u32(source, register(0));
            });
            return Ok(());
        };
        // The IPv4 header has a checksum (RFC 791 §3.1, at byte 10); transport checksums cover the addresses of both.
        let (kind, offset, flags) = match field {
            Field::IpSaddr | Field::IpDaddr => (libc_u32(libc::NFT_PAYLOAD_CSUM_INET), 10, uapi::CSUM_PSEUDO_HEADER),
            Field::Ip6Saddr | Field::Ip6Daddr => (0, 0, uapi::CSUM_PSEUDO_HEADER),
            _ => (0, 0, 0),
        };
        expression(self.writer, "payload", |writer| {
            writer.u32(uapi::payload::SREG, register(0));
            writer.u32(uapi::payload::BASE, place.base);
            writer.u32(uapi::payload::OFFSET, place.offset);
            writer.u32(uapi::payload::LEN, place.bytes);
            writer.u32(uapi::payload::CSUM_TYPE, kind);
            writer.u32(uapi::payload::CSUM_OFFSET, offset);
            writer.u32(uapi::payload::CSUM_FLAGS, flags);
        });
        Ok(())
    }

    fn nat(&mut self, kind: libc::c_int, version: IpVersion, to: &NatTarget) -> Result<(), NftError> {
        let (family, slots) = match version {
            IpVersion::V4 => (libc::AF_INET, 1),
            IpVersion::V6 => (libc::AF_INET6, 4),
        };
        let (address, port) = match to {
            NatTarget::Fixed { address, port } => {
                if let Some(address) = address {
                    if IpVersion::of(*address) != version {
                        return Err(NftError::Other(format!("{address} is not of IP {version:?}")));
                    }
                    constant(self.writer, 0, &octets(*address));
                }
                if let Some(port) = port {
                    constant(self.writer, 4, &port.to_be_bytes());
                }
                (address.map(|_| 0), port.map(|_| 4))
            }
            NatTarget::Map { fields, map, with_port } => {
                self.key(fields)?;
                look_up(self.writer, &SetRef { name: map.clone(), id: None }, Some(register(0)), false);
                (Some(0), with_port.then_some(slots))
            }
        };
        expression(self.writer, "nat", |writer| {
            writer.u32(uapi::nat::TYPE, libc_u32(kind));
            writer.u32(uapi::nat::FAMILY, libc_u32(family));
            let mut flags = 0;
            if let Some(slot) = address {
                writer.u32(uapi::nat::ADDR_MIN, register(slot));
                writer.u32(uapi::nat::ADDR_MAX, register(slot));
                flags |= uapi::NAT_MAP_IPS;
            }
            if let Some(slot) = port {
                writer.u32(uapi::nat::PROTO_MIN, register(slot));
                writer.u32(uapi::nat::PROTO_MAX, register(slot));
                flags |= uapi::NAT_PROTO_SPECIFIED;
            }
            writer.u32(uapi::nat::FLAGS, flags);
        });
        Ok(())
    }

    fn redirect(&mut self, port: Option<u16>) {
        if let Some(port) = port {
            constant(self.writer, 0, &port.to_be_bytes());
        }
        expression(self.writer, "redir", |writer| {
            if port.is_some() {
                writer.u32(uapi::redir::PROTO_MIN, register(0));
                writer.u32(uapi::redir::PROTO_MAX, register(0));
                writer.u32(uapi::redir::FLAGS, uapi::NAT_PROTO_SPECIFIED);
            }
        });
    }

    fn by_device(&mut self, name: &str, attribute: u16, device: &IfName) -> Result<(), NftError> {
        let index = self.around.link_index(device)?;
        constant(self.writer, 0, &index.to_ne_bytes());
        expression(self.writer, name, |writer| writer.u32(attribute, register(0)));
        Ok(())
    }

    fn reject(&mut self, how: Reject) {
        // Codes of RFC 792 and RFC 4443 §3.1; the icmpx ones are the kernel's, which picks by the packet's family.
        let by_family = |icmpx: libc::c_int, v4: u8, v6: u8| match self.family {
            Family::Ip => (libc::NFT_REJECT_ICMP_UNREACH, v4),
            Family::Ip6 => (libc::NFT_REJECT_ICMP_UNREACH, v6),
            _ => (libc::NFT_REJECT_ICMPX_UNREACH, icmpx.to_le_bytes()[0]),
        };
        let (kind, code) = match how {
            Reject::PortUnreachable => by_family(libc::NFT_REJECT_ICMPX_PORT_UNREACH, 3, 4),
            Reject::AdminProhibited => by_family(libc::NFT_REJECT_ICMPX_ADMIN_PROHIBITED, 13, 1),
            Reject::TcpReset => {
                self.presuppose(Field::TcpFlags);
                (libc::NFT_REJECT_TCP_RST, 0)
            }
        };
        expression(self.writer, "reject", |writer| {
            writer.u32(uapi::reject::TYPE, libc_u32(kind));
            writer.raw(uapi::reject::CODE, &[code]);
        });
    }

    fn remember(&mut self, remember: &Remember) -> Result<(), NftError> {
        self.key(&remember.fields)?;
        let op = if remember.refresh { libc::NFT_DYNSET_OP_UPDATE } else { libc::NFT_DYNSET_OP_ADD };
        expression(self.writer, "dynset", |writer| {
            writer.text(uapi::dynset::SET_NAME, &remember.set);
            writer.u32(uapi::dynset::OP, libc_u32(op));
            writer.u32(uapi::dynset::SREG_KEY, register(0));
            if let Some(seconds) = remember.timeout_seconds {
                writer.u64(uapi::dynset::TIMEOUT, u64::from(seconds) * 1000);
            }
        });
        Ok(())
    }
}

fn element((key, verdict): &(Vec<Value>, Verdict)) -> Element {
    Element::of(key.iter().cloned()).verdict(verdict.clone())
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// A set's element in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) key: Vec<u8>,
    pub(crate) key_end: Option<Vec<u8>>,
    pub(crate) data: Option<EncodedData>,
}

/// What a map yields, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EncodedData {
    Value(Vec<u8>),
    Verdict(Verdict),
}

/// Encodes an element after its set's declaration.
pub(crate) fn encode_element(set: &Set, element: &Element) -> Result<Encoded, NftError> {
    let place = format!("set {}", set.name);
    let wrong = |why: &str| NftError::Other(format!("an element of {place} {why}"));
    if element.key.len() != set.key.len() {
        return Err(wrong("has not as many parts as the set's key"));
    }
    let (mut key, mut end, mut is_range) = (Vec::new(), Vec::new(), false);
    for (kind, part) in set.key.iter().zip(&element.key) {
        let (from, to) = match part {
            ElementKey::Is(value) => (value, value),
            ElementKey::Range(from, to) => {
                is_range = true;
                (from, to)
            }
        };
        let encode =
            |value| kind.shape().encode(value, &place).map(|bytes| if set.key.len() > 1 { pad(bytes) } else { bytes });
        key.extend(encode(from)?);
        end.extend(encode(to)?);
    }
    if is_range && !set.flags.interval {
        return Err(wrong("is a range, but the set takes none"));
    }
    let data = match (&set.data, &element.data) {
        (None, None) => None,
        (Some(SetData::Verdict), Some(ElementData::Verdict(verdict))) => Some(EncodedData::Verdict(verdict.clone())),
        (Some(SetData::Values(kinds)), Some(ElementData::Values(values))) if kinds.len() == values.len() => {
            let parts = kinds.iter().zip(values).map(|(kind, value)| {
                kind.shape().encode(value, &place).map(|bytes| if kinds.len() > 1 { pad(bytes) } else { bytes })
            });
            Some(EncodedData::Value(parts.collect::<Result<Vec<_>, _>>()?.concat()))
        }
        // A removal names the key alone.
        (Some(_), None) => None,
        _ => return Err(wrong("does not yield what the map is declared to yield")),
    };
    Ok(Encoded { key, key_end: set.flags.interval.then_some(end), data })
}
