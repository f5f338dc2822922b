//! Asking the kernel for the way of one packet: its answer has gone through rules, all tables and the refusals in them.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use terms::IfName;

use super::Linux;
use super::address;
use super::rtnl::serialize;
use super::steps::Bus;
use crate::attributes::{attributes_of, number};
use crate::kernel::KernelError;

/// `struct rtmsg` of `linux/rtnetlink.h`.
const HEADER_BYTES: usize = 12;

/// A packet whose way is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteQuery {
    /// The destination, of the same family as the source.
    pub to: IpAddr,
    /// From where and by which link it came in, if it is to be passed on; `None` for one that starts here.
    pub passed_on: Option<(IpAddr, IfName)>,
}

impl Linux<'_> {
    /// The index of the link by which a packet would leave; the loopback's for one that would be delivered here.
    ///
    /// # Errors
    /// When it would not be sent: [`KernelError::Refused`] with ENETUNREACH where no route is, EINVAL at a blackhole,
    /// EHOSTUNREACH at an unreachable route or without forwarding, EACCES at a prohibited one, EXDEV at strict
    /// reverse-path filtering. When the link that it came in by is not there.
    pub fn look_up_route(&mut self, query: &RouteQuery) -> Result<u32, KernelError> {
        let host_bits = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
        let mut message = RouteMessage::default();
        message.header.address_family = address::family(query.to);
        message.header.destination_prefix_length = host_bits(query.to);
        message.attributes.push(RouteAttribute::Destination(query.to.into()));
        if let Some((from, link)) = &query.passed_on {
            message.header.source_prefix_length = host_bits(*from);
            message.attributes.push(RouteAttribute::Source((*from).into()));
            message.attributes.push(RouteAttribute::Iif(self.index(link)?));
        }
        let sequence = self.channel.next_sequence();
        let ask = serialize(sequence, NLM_F_REQUEST | NLM_F_ACK, RouteNetlinkMessage::GetRoute(message));
        // Read like a dump: one message, and the acknowledgement ends it.
        let answers = self.channel.dump(Bus::Route, &ask, sequence, |frame| {
            let attributes = frame.payload.get(HEADER_BYTES..).filter(|_| frame.kind == libc::RTM_NEWROUTE);
            let link = attributes_of(attributes.unwrap_or_default()).find(|(kind, _)| *kind == libc::RTA_OIF);
            Ok(link.and_then(|(_, value)| number(value, 0)))
        })?;
        let why = || "it names no link".to_owned();
        answers.first().copied().ok_or_else(|| KernelError::Decode { what: "the way of a packet", why: why() })
    }
}
