//! Statements that change or divert a packet.

use std::net::IpAddr;

use terms::IfName;

use super::super::encoding::NftError;
use super::super::expression::{
    self, Head, LONG, NUMBER, SetRef, attribute_bytes, begin, constant, head, libc_u32, look_up, register,
};
use super::super::uapi;
use super::super::{Field, IpVersion, Limit, NatTarget, Reject, Value};
use super::Compiler;

pub(super) const FWD: Head<16> = head("fwd");
pub(super) const DUP: Head<16> = head("dup");
const CT: Head<16> = head("ct");
const META: Head<20> = head("meta");
const PAYLOAD: Head<20> = head("payload");
const NAT: Head<16> = head("nat");
const REDIR: Head<20> = head("redir");
const LIMIT: Head<20> = head("limit");
const REJECT: Head<20> = head("reject");

impl Compiler<'_> {
    pub(super) fn set(&mut self, field: Field, value: &Value) -> Result<(), NftError> {
        let bytes = field.encoding().encode(value, &field)?;
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
            let (key_kind, key, source) = if field == Field::CtMark {
                begin(self.writer, &CT, 2 * NUMBER);
                (uapi::ct::KEY, libc::NFT_CT_MARK, uapi::ct::SREG)
            } else {
                begin(self.writer, &META, 2 * NUMBER);
                (uapi::meta::KEY, libc::NFT_META_MARK, uapi::meta::SREG)
            };
            self.writer.numbers([(key_kind, libc_u32(key)), (source, register(0))]);
            return Ok(());
        };
        // The kernel corrects the checksums that cover the field only if it is told which they are.
        let (kind, offset, flags) = expression::checksum(field);
        begin(self.writer, &PAYLOAD, 7 * NUMBER);
        self.writer.numbers([
            (uapi::payload::SREG, register(0)),
            (uapi::payload::BASE, place.base),
            (uapi::payload::OFFSET, place.offset),
            (uapi::payload::LEN, place.bytes),
            (uapi::payload::CSUM_TYPE, kind),
            (uapi::payload::CSUM_OFFSET, offset),
            (uapi::payload::CSUM_FLAGS, flags),
        ]);
        Ok(())
    }

    pub(super) fn nat(&mut self, kind: libc::c_int, version: IpVersion, to: &NatTarget) -> Result<(), NftError> {
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
                    match address {
                        IpAddr::V4(ip) => constant(self.writer, 0, &ip.octets()),
                        IpAddr::V6(ip) => constant(self.writer, 0, &ip.octets()),
                    }
                }
                if let Some(port) = port {
                    // A slot has four bytes: slot 4 is behind the longest address.
                    constant(self.writer, 4, &port.to_be_bytes());
                }
                (address.map(|_| 0), port.map(|_| 4))
            }
            NatTarget::Map { fields, map, with_port } => {
                self.key(fields)?;
                look_up(self.writer, &SetRef { name: map, id: None }, Some(register(0)), false);
                (Some(0), with_port.then_some(slots))
            }
        };
        let ends = [address, port].iter().flatten().count();
        begin(self.writer, &NAT, (3 + 2 * ends) * NUMBER);
        self.writer.numbers([(uapi::nat::TYPE, libc_u32(kind)), (uapi::nat::FAMILY, libc_u32(family))]);
        let mut flags = 0;
        // One address, not a range: both ends are the same register.
        if let Some(slot) = address {
            self.writer.numbers([(uapi::nat::ADDR_MIN, register(slot)), (uapi::nat::ADDR_MAX, register(slot))]);
            flags |= uapi::NAT_MAP_IPS;
        }
        if let Some(slot) = port {
            self.writer.numbers([(uapi::nat::PROTO_MIN, register(slot)), (uapi::nat::PROTO_MAX, register(slot))]);
            flags |= uapi::NAT_PROTO_SPECIFIED;
        }
        self.writer.u32(uapi::nat::FLAGS, flags);
        Ok(())
    }

    pub(super) fn redirect(&mut self, port: Option<u16>) {
        if let Some(port) = port {
            constant(self.writer, 0, &port.to_be_bytes());
        }
        begin(self.writer, &REDIR, port.map_or(0, |_| 3 * NUMBER));
        if port.is_some() {
            self.writer.numbers([
                (uapi::redir::PROTO_MIN, register(0)),
                (uapi::redir::PROTO_MAX, register(0)),
                (uapi::redir::FLAGS, uapi::NAT_PROTO_SPECIFIED),
            ]);
        }
    }

    pub(super) fn by_device(&mut self, name: &Head<16>, attribute: u16, device: &IfName) -> Result<(), NftError> {
        let index = self.around.link_index(device)?;
        constant(self.writer, 0, &index.to_ne_bytes());
        begin(self.writer, name, NUMBER);
        self.writer.u32(attribute, register(0));
        Ok(())
    }

    pub(super) fn limit(&mut self, limit: Limit) {
        begin(self.writer, &LIMIT, 2 * LONG + 3 * NUMBER);
        self.writer.u64(uapi::limit::RATE, limit.packets_per_second.into());
        // Seconds in a unit of time.
        self.writer.u64(uapi::limit::UNIT, 1);
        self.writer.numbers([
            (uapi::limit::BURST, limit.burst_packets),
            (uapi::limit::TYPE, uapi::LIMIT_PACKETS),
            (uapi::limit::FLAGS, if limit.over { uapi::LIMIT_OVER } else { 0 }),
        ]);
    }

    pub(super) fn reject(&mut self, how: Reject) {
        if how == Reject::TcpReset {
            self.presuppose(Field::TcpFlags);
        }
        let (kind, code) = expression::reject_code(self.family, how);
        begin(self.writer, &REJECT, NUMBER + attribute_bytes(1));
        self.writer.u32(uapi::reject::TYPE, kind);
        self.writer.raw(uapi::reject::CODE, &[code]);
    }
}
