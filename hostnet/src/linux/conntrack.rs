//! Forgetting connections that connection tracking remembers.

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};

use super::Linux;
use super::nft_dump::{GENERIC_BYTES, request};
use super::steps::Bus;
use crate::attributes::attribute;
use crate::kernel::KernelError;
use crate::nft::IpVersion;
use crate::op::Flow;

/// IPCTNL_MSG_CT_* of `linux/netfilter/nfnetlink_conntrack.h`.
const GET: u8 = 1;
const DELETE: u8 = 2;

/// CTA_* of the same header.
mod cta {
    pub(super) const TUPLE_ORIG: u16 = 1;
    pub(super) const TUPLE_IP: u16 = 1;
    pub(super) const TUPLE_PROTO: u16 = 2;
    pub(super) const IP_V4_DST: u16 = 2;
    pub(super) const IP_V6_DST: u16 = 4;
    pub(super) const PROTO_NUM: u16 = 1;
    pub(super) const PROTO_DST_PORT: u16 = 3;
    pub(super) const ZONE: u16 = 18;
}

impl Linux<'_> {
    /// Removes the entries of a flow. One that ends by itself meanwhile is as good as removed.
    pub(super) fn delete_conntrack(&mut self, flow: &Flow) -> Result<(), KernelError> {
        let family = match flow.version {
            IpVersion::V4 => libc::AF_INET.to_le_bytes()[0],
            IpVersion::V6 => libc::AF_INET6.to_le_bytes()[0],
        };
        let subsystem = libc::NFNL_SUBSYS_CTNETLINK.to_le_bytes()[0];
        let sequence = self.channel.next_sequence();
        let ask = request(subsystem, GET, NLM_F_REQUEST | NLM_F_DUMP, sequence, family, |_| {});
        let entries = self.channel.dump(Bus::Netfilter, &ask, sequence, |frame| {
            let attributes = frame.payload.get(GENERIC_BYTES..).unwrap_or_default();
            let tuple = attribute(attributes, cta::TUPLE_ORIG).unwrap_or_default();
            let zone = attribute(attributes, cta::ZONE).map(<[u8]>::to_vec);
            Ok(is_of(flow, tuple).then(|| (tuple.to_vec(), zone)))
        })?;
        for (tuple, zone) in entries {
            let sequence = self.channel.next_sequence();
            let delete = request(subsystem, DELETE, NLM_F_REQUEST | NLM_F_ACK, sequence, family, |writer| {
                writer.raw(cta::TUPLE_ORIG, &tuple);
                if let Some(zone) = &zone {
                    writer.raw(cta::ZONE, zone);
                }
            });
            match self.channel.request(Bus::Netfilter, &delete, sequence, sequence)? {
                Some(refused) if !refused.error.is_absent() => return Err(refused.error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether an entry's original direction leads where the flow does.
fn is_of(flow: &Flow, tuple: &[u8]) -> bool {
    let ip = attribute(tuple, cta::TUPLE_IP).unwrap_or_default();
    let transport = attribute(tuple, cta::TUPLE_PROTO).unwrap_or_default();
    let address = match flow.destination {
        None => true,
        Some(std::net::IpAddr::V4(to)) => attribute(ip, cta::IP_V4_DST) == Some(&to.octets()),
        Some(std::net::IpAddr::V6(to)) => attribute(ip, cta::IP_V6_DST) == Some(&to.octets()),
    };
    let protocol = attribute(transport, cta::PROTO_NUM) == Some(&[flow.protocol_number()]);
    address && protocol && attribute(transport, cta::PROTO_DST_PORT) == Some(&flow.port.to_be_bytes())
}
