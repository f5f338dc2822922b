//! Statements that change or divert a packet.

use std::net::IpAddr;

use terms::IfName;

use super::super::encoding::NftError;
use super::super::expression::{self, SetRef, constant, expression, libc_u32, look_up, register};
use super::super::uapi;
use super::super::{Field, IpVersion, Limit, NatTarget, Reject, Value};
use super::Compiler;

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
        let (kind, offset, flags) = expression::checksum(field);
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

    pub(super) fn redirect(&mut self, port: Option<u16>) {
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

    pub(super) fn by_device(&mut self, name: &str, attribute: u16, device: &IfName) -> Result<(), NftError> {
        let index = self.around.link_index(device)?;
        constant(self.writer, 0, &index.to_ne_bytes());
        expression(self.writer, name, |writer| writer.u32(attribute, register(0)));
        Ok(())
    }

    pub(super) fn limit(&mut self, limit: Limit) {
        expression(self.writer, "limit", |writer| {
            writer.u64(uapi::limit::RATE, limit.packets_per_second.into());
            // Seconds in a unit of time.
            writer.u64(uapi::limit::UNIT, 1);
            writer.u32(uapi::limit::BURST, limit.burst_packets);
            writer.u32(uapi::limit::TYPE, uapi::LIMIT_PACKETS);
            writer.u32(uapi::limit::FLAGS, if limit.over { uapi::LIMIT_OVER } else { 0 });
        });
    }

    pub(super) fn reject(&mut self, how: Reject) {
        if how == Reject::TcpReset {
            self.presuppose(Field::TcpFlags);
        }
        let (kind, code) = expression::reject_code(self.family, how);
        expression(self.writer, "reject", |writer| {
            writer.u32(uapi::reject::TYPE, kind);
            writer.raw(uapi::reject::CODE, &[code]);
        });
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}
