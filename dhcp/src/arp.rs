//! ARP for a server identifier that is nobody's address, so that unicast renewals reach the engine (RFC 826).

use std::net::Ipv4Addr;

use crate::Frame;
use crate::bytes::Bytes;
use crate::config::Config;
use crate::frame::Link;

/// Ethernet, IPv4, six and four bytes of address.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// Answers a request of the guest for the server identifier.
pub(crate) fn answer(config: &Config, packet: &[u8]) -> Option<Frame> {
    let v4 = config.v4.as_ref().filter(|v4| v4.answers_arp)?;
    let mut bytes = Bytes::new(packet);
    let is_request = bytes.array()? == ETHERNET_IPV4 && bytes.u16()? == REQUEST;
    let asker_mac: [u8; 6] = bytes.array()?;
    let asker: [u8; 4] = bytes.array()?;
    let _nothing: [u8; 6] = bytes.array()?;
    let target = Ipv4Addr::from(bytes.array::<4>()?);
    if !is_request || asker_mac != config.guest_mac.bytes() || target != v4.server_id {
        return None;
    }
    let mac = config.service_mac.bytes();
    let reply = [&ETHERNET_IPV4[..], &REPLY.to_be_bytes(), &mac, &target.octets(), &asker_mac, &asker].concat();
    Some(Link { source: config.service_mac, destination: asker_mac }.arp(&reply))
}
