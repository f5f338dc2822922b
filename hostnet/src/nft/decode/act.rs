//! Expressions that act on a packet.

use std::net::IpAddr;

use super::super::expression::{checksum, libc_u32, meta_key, place, reject_code};
use super::super::uapi::{self, counter, dynset, limit, nat, payload, redir, reject};
use super::super::{Counter, Field, IpVersion, Limit, NatTarget, Reject, Statement, UpdateSet};
use super::attributes::Attributes;
use super::{Content, Decoder};
use crate::attributes::text;

impl Decoder<'_, '_> {
    pub(super) fn count(&mut self, inside: Attributes<'_>) -> Option<()> {
        inside.only(&[counter::BYTES, counter::PACKETS])?;
        let seen = Counter { packets: inside.long(counter::PACKETS), bytes: inside.long(counter::BYTES) };
        self.counter.get_or_insert(seen);
        self.statements.push(Statement::Counter);
        Some(())
    }

    /// A field that becomes a constant.
    pub(super) fn write(&mut self, name: &[u8], inside: Attributes<'_>) -> Option<()> {
        let (field, slot) = match name {
            b"meta" => {
                inside.only(&[uapi::meta::KEY, uapi::meta::SREG])?;
                let is_mark = meta_key(Field::Mark) == Some(inside.number(uapi::meta::KEY));
                (Field::Mark, inside.slot(uapi::meta::SREG).filter(|_| is_mark)?)
            }
            b"ct" => {
                inside.only(&[uapi::ct::KEY, uapi::ct::SREG])?;
                let is_mark = inside.number(uapi::ct::KEY) == libc_u32(libc::NFT_CT_MARK);
                (Field::CtMark, inside.slot(uapi::ct::SREG).filter(|_| is_mark)?)
            }
            _ => (self.written_field(inside)?, inside.slot(payload::SREG)?),
        };
        let Content::Constant(bytes) = self.take(slot)? else { return None };
        let value = Some(field.encoding().decode(&bytes)).filter(|_| bytes.len() == field.encoding().bytes())?;
        self.push(&[field], Statement::Set { field, value });
        Some(())
    }

    fn written_field(&self, inside: Attributes<'_>) -> Option<Field> {
        const WRITABLE: [Field; 6] =
            [Field::EtherSaddr, Field::EtherDaddr, Field::IpSaddr, Field::IpDaddr, Field::Ip6Saddr, Field::Ip6Daddr];
        let known = [payload::SREG, payload::BASE, payload::OFFSET, payload::LEN];
        let sums = [payload::CSUM_TYPE, payload::CSUM_OFFSET, payload::CSUM_FLAGS];
        inside.only(&[known.as_slice(), &sums].concat())?;
        let [base, offset, bytes] = [payload::BASE, payload::OFFSET, payload::LEN].map(|kind| inside.number(kind));
        let [kind, at, flags] = sums.map(|kind| inside.number(kind));
        WRITABLE.into_iter().find(|field| {
            let is_there =
                place(*field).is_some_and(|place| (place.base, place.offset, place.bytes) == (base, offset, bytes));
            is_there && checksum(*field) == (kind, at, flags) && self.is_usable(*field)
        })
    }

    /// `snat` and `dnat`; `None` for an address or port range, or flags that are not written here.
    pub(super) fn translate(&mut self, inside: Attributes<'_>) -> Option<()> {
        let registers = [nat::ADDR_MIN, nat::ADDR_MAX, nat::PROTO_MIN, nat::PROTO_MAX];
        inside.only(&[&[nat::TYPE, nat::FAMILY, nat::FLAGS], registers.as_slice()].concat())?;
        let version = match inside.number(nat::FAMILY) {
            family if family == libc_u32(libc::AF_INET) => IpVersion::V4,
            family if family == libc_u32(libc::AF_INET6) => IpVersion::V6,
            _ => return None,
        };
        let [address, _, port, _] = registers.map(|kind| inside.slot(kind));
        let is_range = inside.is_range(nat::ADDR_MIN, nat::ADDR_MAX) || inside.is_range(nat::PROTO_MIN, nat::PROTO_MAX);
        let flags = if address.is_some() { uapi::NAT_MAP_IPS } else { 0 }
            | if port.is_some() { uapi::NAT_PROTO_SPECIFIED } else { 0 };
        if is_range || inside.number(nat::FLAGS) != flags {
            return None;
        }
        let to = self.target(version, address, port)?;
        let fields = if let NatTarget::Map { fields, .. } = &to { fields.clone() } else { Vec::new() };
        let statement = match inside.number(nat::TYPE) {
            kind if kind == libc_u32(libc::NFT_NAT_DNAT) => Statement::Dnat { version, to },
            kind if kind == libc_u32(libc::NFT_NAT_SNAT) => Statement::Snat { version, to },
            _ => return None,
        };
        self.push(&fields, statement);
        Some(())
    }

    fn target(&mut self, version: IpVersion, address: Option<u32>, port: Option<u32>) -> Option<NatTarget> {
        let constant = |content| if let Content::Constant(bytes) = content { Some(bytes) } else { None };
        if let Some(slot) = address
            && let Some((_, Content::Mapped { .. })) = self.registers.iter().find(|(at, _)| *at == slot)
        {
            let Content::Mapped { fields, map } = self.take(slot)? else { return None };
            // The port follows the address in what the map yields.
            let behind = if version == IpVersion::V4 { 1 } else { 4 };
            return match port {
                None => Some(NatTarget::Map { fields, map, with_port: false }),
                Some(port) => (port == slot + behind).then_some(NatTarget::Map { fields, map, with_port: true }),
            };
        }
        let address = match address {
            Some(slot) => Some(ip(version, &constant(self.take(slot)?)?)?),
            None => None,
        };
        let port = match port {
            Some(slot) => Some(number16(&constant(self.take(slot)?)?)?),
            None => None,
        };
        Some(NatTarget::Fixed { address, port })
    }

    pub(super) fn redirect(&mut self, inside: Attributes<'_>) -> Option<()> {
        inside.only(&[redir::PROTO_MIN, redir::PROTO_MAX, redir::FLAGS])?;
        if inside.is_range(redir::PROTO_MIN, redir::PROTO_MAX) {
            return None;
        }
        let port = match (inside.slot(redir::PROTO_MIN), inside.number(redir::FLAGS)) {
            (None, 0) => None,
            (Some(slot), uapi::NAT_PROTO_SPECIFIED) => match self.take(slot)? {
                Content::Constant(bytes) => Some(number16(&bytes)?),
                _ => return None,
            },
            _ => return None,
        };
        self.statements.push(Statement::Redirect { port });
        Some(())
    }

    /// `fwd` and `dup` to the device whose index is in a register.
    pub(super) fn by_device(&mut self, name: &[u8], inside: Attributes<'_>) -> Option<()> {
        let source = if name == b"fwd" { uapi::fwd::SREG_DEV } else { uapi::dup::SREG_DEV };
        inside.only(&[source])?;
        let Content::Constant(bytes) = self.take(inside.slot(source)?)? else { return None };
        let index = u32::from_ne_bytes(bytes.as_slice().try_into().ok()?);
        let to = self.context.links.link_at(index)?.clone();
        self.statements.push(if name == b"fwd" { Statement::Forward { to } } else { Statement::Duplicate { to } });
        Some(())
    }

    pub(super) fn reject(&mut self, inside: Attributes<'_>) -> Option<()> {
        inside.only(&[reject::TYPE, reject::CODE])?;
        let code = inside.bytes(reject::CODE).and_then(|bytes| bytes.first().copied()).unwrap_or_default();
        let found = (inside.number(reject::TYPE), code);
        let how = [Reject::PortUnreachable, Reject::AdminProhibited, Reject::TcpReset]
            .into_iter()
            .find(|how| reject_code(self.context.family, *how) == found)?;
        let fields: &[Field] = if how == Reject::TcpReset { &[Field::TcpFlags] } else { &[] };
        if !fields.iter().all(|field| self.is_usable(*field)) {
            return None;
        }
        self.push(fields, Statement::Reject(how));
        Some(())
    }

    pub(super) fn update_set(&mut self, inside: Attributes<'_>) -> Option<()> {
        inside.only(&[dynset::SET_NAME, dynset::SET_ID, dynset::OP, dynset::SREG_KEY, dynset::TIMEOUT])?;
        let refresh = match inside.number(dynset::OP) {
            op if op == libc_u32(libc::NFT_DYNSET_OP_ADD) => false,
            op if op == libc_u32(libc::NFT_DYNSET_OP_UPDATE) => true,
            _ => return None,
        };
        let timeout_seconds = match inside.long(dynset::TIMEOUT) {
            0 => None,
            milliseconds if milliseconds % 1000 == 0 => Some(u32::try_from(milliseconds / 1000).ok()?),
            _ => return None,
        };
        let set = text(inside.bytes(dynset::SET_NAME)?);
        let fields = self.key(inside.slot(dynset::SREG_KEY)?)?;
        let update = UpdateSet { set, fields: fields.clone(), refresh, timeout_seconds };
        self.push(&fields, Statement::UpdateSet(update));
        Some(())
    }

    pub(super) fn limit(&mut self, inside: Attributes<'_>) -> Option<()> {
        inside.only(&[limit::RATE, limit::UNIT, limit::BURST, limit::TYPE, limit::FLAGS])?;
        let over = match inside.number(limit::FLAGS) {
            0 => false,
            uapi::LIMIT_OVER => true,
            _ => return None,
        };
        if inside.long(limit::UNIT) != 1 || inside.number(limit::TYPE) != uapi::LIMIT_PACKETS {
            return None;
        }
        let packets_per_second = u32::try_from(inside.long(limit::RATE)).ok()?;
        let limit = Limit { packets_per_second, burst_packets: inside.number(limit::BURST), over };
        self.statements.push(Statement::Limit(limit));
        Some(())
    }
}

fn ip(version: IpVersion, bytes: &[u8]) -> Option<IpAddr> {
    match version {
        IpVersion::V4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        IpVersion::V6 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
    }
}

fn number16(bytes: &[u8]) -> Option<u16> {
    bytes.try_into().ok().map(u16::from_be_bytes)
}
