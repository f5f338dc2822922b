//! Ethernet, IPv4, IPv6, UDP and ICMPv6, as far as a DHCP server and a router on one link need them.
//!
//! Received checksums are not verified: a guest with checksum offload hands over frames whose sums are not completed
//! yet, and the link between guest and engine is memory. Fragments, extension headers and VLAN tags are not for us.

use std::net::{Ipv4Addr, Ipv6Addr};

use terms::MacAddr;

use crate::bytes::Bytes;

/// EtherTypes (IEEE 802 numbers).
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// IP protocol numbers.
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// Bytes of headers, none with options.
const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: u16 = 20;
const UDP_BYTES: u16 = 8;

/// A frame as it came, reduced to what the engine may answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received<'a> {
    pub(crate) source: [u8; 6],
    pub(crate) content: Content<'a>,
}

/// What a frame carries.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Content<'a> {
    Udp4(Datagram<'a, Ipv4Addr>),
    Udp6(Datagram<'a, Ipv6Addr>),
    Icmp6(Icmp6<'a>),
}

/// A UDP datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Datagram<'a, A> {
    pub(crate) source: A,
    pub(crate) destination: A,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) payload: &'a [u8],
}

/// An ICMPv6 message; `body` starts behind the checksum.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Icmp6<'a> {
    pub(crate) source: Ipv6Addr,
    pub(crate) hop_limit: u8,
    pub(crate) kind: u8,
    pub(crate) code: u8,
    pub(crate) body: &'a [u8],
}

/// Reads a frame; `None` when it is cut short or nothing the engine knows.
pub(crate) fn parse(frame: &[u8]) -> Option<Received<'_>> {
    let mut bytes = Bytes::new(frame);
    let _destination: [u8; 6] = bytes.array()?;
    let source = bytes.array()?;
    let content = match bytes.u16()? {
        IPV4 => Content::Udp4(parse_udp4(bytes)?),
        IPV6 => parse_ipv6(bytes)?,
        _ => return None,
    };
    Some(Received { source, content })
}

fn parse_udp4(packet: Bytes<'_>) -> Option<Datagram<'_, Ipv4Addr>> {
    let mut header = packet;
    let version_and_words = header.u8()?;
    let _service = header.u8()?;
    let total = usize::from(header.u16()?);
    let _identification = header.u16()?;
    let fragment = header.u16()?;
    let _hops = header.u8()?;
    let protocol = header.u8()?;
    let _checksum = header.u16()?;
    let source = header.array()?.into();
    let destination = header.array()?.into();
    let header_bytes = usize::from(version_and_words & 0x0f) * 4;
    // 0x3fff: more-fragments flag and offset (RFC 791 §3.1).
    if version_and_words >> 4 != 4 || header_bytes < 20 || fragment & 0x3fff != 0 || protocol != UDP {
        return None;
    }
    parse_udp(packet.rest().get(header_bytes..total)?, source, destination)
}

fn parse_ipv6(mut packet: Bytes<'_>) -> Option<Content<'_>> {
    if packet.u32()? >> 28 != 6 {
        return None;
    }
    let length = usize::from(packet.u16()?);
    let next_header = packet.u8()?;
    let hop_limit = packet.u8()?;
    let source = packet.array::<16>()?.into();
    let destination = packet.array::<16>()?.into();
    let payload = packet.take(length)?;
    match next_header {
        UDP => Some(Content::Udp6(parse_udp(payload, source, destination)?)),
        ICMPV6 => {
            let mut message = Bytes::new(payload);
            let kind = message.u8()?;
            let code = message.u8()?;
            let _checksum = message.u16()?;
            Some(Content::Icmp6(Icmp6 { source, hop_limit, kind, code, body: message.rest() }))
        }
        _ => None,
    }
}

fn parse_udp<A>(segment: &[u8], source: A, destination: A) -> Option<Datagram<'_, A>> {
    let mut header = Bytes::new(segment);
    let source_port = header.u16()?;
    let destination_port = header.u16()?;
    let length = usize::from(header.u16()?);
    let payload = segment.get(usize::from(UDP_BYTES)..length)?;
    Some(Datagram { source, destination, source_port, destination_port, payload })
}

/// From whom to whom a frame of ours goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) source: MacAddr,
    pub(crate) destination: [u8; 6],
}

impl Link {
    fn frame(self, ether_type: u16, payload_bytes: u16) -> Vec<u8> {
        let mut frame = Vec::with_capacity(ETHERNET_BYTES + usize::from(payload_bytes));
        frame.extend(self.destination);
        frame.extend(self.source.bytes());
        frame.extend(ether_type.to_be_bytes());
        frame
    }

    /// A UDP datagram over IPv4; addresses come with their ports.
    pub(crate) fn udp4(self, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
        let segment_bytes = bytes_of(payload).saturating_add(UDP_BYTES);
        let total = segment_bytes.saturating_add(IPV4_BYTES);
        let mut header = Vec::with_capacity(usize::from(IPV4_BYTES));
        header.extend([0x45, 0]);
        header.extend(total.to_be_bytes());
        // Identification 0 with "don't fragment" (RFC 6864 §4.1); 64 hops.
        header.extend([0, 0, 0x40, 0, 64, UDP, 0, 0]);
        header.extend(from.0.octets());
        header.extend(to.0.octets());
        let header_sum = checksum(&[&header]);
        header.splice(10..12, header_sum.to_be_bytes());
        let pseudo = [&from.0.octets()[..], &to.0.octets()[..], &[0, UDP], &segment_bytes.to_be_bytes()].concat();
        let mut frame = self.frame(IPV4, total);
        frame.extend(header);
        push_udp(&mut frame, &pseudo, from.1, to.1, payload);
        frame
    }

    /// A UDP datagram over IPv6; addresses come with their ports.
    pub(crate) fn udp6(self, from: (Ipv6Addr, u16), to: (Ipv6Addr, u16), payload: &[u8]) -> Vec<u8> {
        let segment_bytes = bytes_of(payload).saturating_add(UDP_BYTES);
        let mut frame = self.ipv6(from.0, to.0, UDP, 64, segment_bytes);
        push_udp(&mut frame, &pseudo6(from.0, to.0, UDP, segment_bytes), from.1, to.1, payload);
        frame
    }

    /// An ICMPv6 message of neighbour discovery (hop limit 255, RFC 4861 §3.1).
    pub(crate) fn icmp6(self, from: Ipv6Addr, to: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
        let message_bytes = bytes_of(body).saturating_add(4);
        let sum = checksum(&[&pseudo6(from, to, ICMPV6, message_bytes), &[kind, 0], body]);
        let mut frame = self.ipv6(from, to, ICMPV6, 255, message_bytes);
        frame.extend([kind, 0]);
        frame.extend(sum.to_be_bytes());
        frame.extend(body);
        frame
    }

    fn ipv6(self, from: Ipv6Addr, to: Ipv6Addr, next_header: u8, hops: u8, payload_bytes: u16) -> Vec<u8> {
        let mut frame = self.frame(IPV6, payload_bytes.saturating_add(40));
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(payload_bytes.to_be_bytes());
        frame.extend([next_header, hops]);
        frame.extend(from.octets());
        frame.extend(to.octets());
        frame
    }
}

/// The Ethernet group address of an IPv6 multicast address (RFC 2464 §7).
pub(crate) fn multicast_mac(group: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

/// The solicited-node group of an address (RFC 4291 §2.7.1).
pub(crate) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low)
}

/// The link-local address made of an Ethernet address (RFC 4291 appendix A).
pub(crate) fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.bytes();
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

fn push_udp(frame: &mut Vec<u8>, pseudo: &[u8], from: u16, to: u16, payload: &[u8]) {
    let mut header = Vec::with_capacity(usize::from(UDP_BYTES));
    header.extend(from.to_be_bytes());
    header.extend(to.to_be_bytes());
    header.extend(bytes_of(payload).saturating_add(UDP_BYTES).to_be_bytes());
    // A sum of zero is sent as all ones: zero says "no checksum" (RFC 768; forbidden over IPv6, RFC 8200 §8.1).
    let sum = match checksum(&[pseudo, &header, payload]) {
        0 => 0xffff,
        sum => sum,
    };
    frame.extend(header);
    frame.extend(sum.to_be_bytes());
    frame.extend(payload);
}

fn pseudo6(from: Ipv6Addr, to: Ipv6Addr, next_header: u8, bytes: u16) -> Vec<u8> {
    let (from, to, length) = (from.octets(), to.octets(), u32::from(bytes).to_be_bytes());
    [&from[..], &to[..], &length[..], &[0, 0, 0, next_header]].concat()
}

/// Our own payloads are bounded by the link's MTU; the saturation is never seen.
fn bytes_of(payload: &[u8]) -> u16 {
    u16::try_from(payload.len()).unwrap_or(u16::MAX)
}

/// The Internet checksum (RFC 1071) over parts, each but the last of even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u32 = words.map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let [_, _, high, low] = (folded + (folded >> 16)).to_be_bytes();
    !u16::from_be_bytes([high, low])
}
