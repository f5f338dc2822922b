//! ARP for IPv4 over Ethernet (RFC 826), as far as a look for hosts that use an address needs it (RFC 5227).

use std::net::Ipv4Addr;

use terms::MacAddr;

use crate::Frame;
use crate::bytes::Bytes;

const ETHER_TYPE: u16 = 0x0806;
/// Hardware type Ethernet, protocol type IPv4, and the lengths of their addresses.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: u8 = 1;
const EVERY_HOST: [u8; 6] = [0xff; 6];
/// Least bytes of an Ethernet frame without its check sequence.
const LEAST_BYTES: usize = 60;

/// A host that says by an ARP packet that it uses an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) address: Ipv4Addr,
    pub(crate) mac: [u8; 6],
}

/// Whether a frame is an ARP packet, of whatever kind.
pub(crate) fn is_arp(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&ETHER_TYPE.to_be_bytes())
}

/// What an ARP packet claims, whether it asks or answers. A probe claims nothing: its sender has no address (RFC 5227 §1.1).
pub(crate) fn claim(frame: &[u8]) -> Option<Claim> {
    let mut bytes = Bytes::new(frame);
    let _header = bytes.take(14)?;
    let is_of_ipv4 = bytes.array()? == KIND;
    let _operation = bytes.u16()?;
    let (mac, address) = (bytes.array()?, Ipv4Addr::from(bytes.array::<4>()?));
    (is_of_ipv4 && !address.is_unspecified()).then_some(Claim { address, mac })
}

/// The question whether a host uses the address, from a sender without address (RFC 5227 §2.1.1).
pub(crate) fn probe(mac: MacAddr, address: Ipv4Addr) -> Frame {
    let mut frame = [&EVERY_HOST[..], &mac.bytes(), &ETHER_TYPE.to_be_bytes(), &KIND, &[0, REQUEST]].concat();
    frame.extend(mac.bytes());
    frame.extend([0; 4 + 6]);
    frame.extend(address.octets());
    frame.resize(LEAST_BYTES, 0);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_claims_nothing_and_an_answer_to_it_does() {
        let address = Ipv4Addr::new(10, 9, 0, 7);
        let frame = probe(MacAddr::local([0, 0, 0, 0, 1]), address);
        let packet = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(etherparse::NetSlice::Arp(arp)) = &packet.net else { panic!("no ARP: {packet:?}") };
        assert_eq!((arp.sender_protocol_addr(), arp.target_protocol_addr()), (&[0; 4][..], &address.octets()[..]));
        assert_eq!(claim(&frame), None);
        let mut frame = frame.clone();
        frame[28..32].copy_from_slice(&address.octets());
        let claimed = Claim { address, mac: frame[22..28].try_into().unwrap() };
        assert_eq!(claim(&frame), Some(claimed));
        (0..32).for_each(|length| assert_eq!(claim(&frame[..length]), None, "{length}"));
    }
}
