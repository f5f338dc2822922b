//! What must hold of a packet before a rule may look at a field of it.

use super::encoding::Bytes;
use super::{Family, Field};

/// A test for equality that comes before a field: the field of the test, and the bytes that it must have.
///
/// `nft` writes the same tests, and leaves them out of its listings.
pub(crate) type Presupposition = (Field, Bytes);

/// What a field presupposes in a table of a family; `None` if it can always be looked at.
pub(crate) fn presupposed(family: Family, field: Field) -> Option<Presupposition> {
    let routed = matches!(family, Family::Inet | Family::Ip | Family::Ip6);
    let framed = matches!(family, Family::Bridge | Family::Netdev);
    let equals = |field: Field, bytes: &[u8]| Some((field, Bytes::of(bytes)?));
    let ethertype = |number: u16| equals(Field::Protocol, &number.to_be_bytes());
    let version = |number: u8| equals(Field::Nfproto, &[number]);
    let transport = |number: u8| equals(Field::L4proto, &[number]);
    match field {
        // ETH_P_* of `linux/if_ether.h`, NFPROTO_* of `linux/netfilter.h`.
        Field::IpSaddr | Field::IpDaddr if framed => ethertype(0x0800),
        Field::Ip6Saddr | Field::Ip6Daddr if framed => ethertype(0x86dd),
        Field::IpSaddr | Field::IpDaddr if family == Family::Inet => version(2),
        Field::Ip6Saddr | Field::Ip6Daddr if family == Family::Inet => version(10),
        Field::ArpOperation | Field::ArpSenderEther | Field::ArpSenderIp | Field::ArpTargetIp if framed => {
            ethertype(0x0806)
        }
        Field::TcpSport | Field::TcpDport | Field::TcpFlags => transport(6),
        Field::UdpSport | Field::UdpDport => transport(17),
        Field::IcmpType => transport(1),
        Field::Icmpv6Type | Field::NdTarget => transport(58),
        // A link-layer header must be an Ethernet one.
        Field::EtherSaddr | Field::EtherDaddr | Field::EtherType if routed => {
            let key = libc::NFT_META_IIFTYPE.cast_unsigned();
            equals(Field::Meta { key }, &libc::ARPHRD_ETHER.to_ne_bytes())
        }
        _ => None,
    }
}

/// Whether what a field presupposes is among what earlier tests of a rule established.
pub(crate) fn is_established(presupposition: &Presupposition, known: &[Presupposition]) -> bool {
    let (field, bytes) = presupposition;
    let holds = |of: Field| known.iter().any(|(field, known)| *field == of && known == bytes);
    // The ethertype of a frame is the packet's protocol, unless it is that of a VLAN tag, which is no IP version.
    holds(*field) || (*field == Field::Protocol && holds(Field::EtherType))
}

/// Whether packets of a family's tables can have the field, whatever a rule tests before it.
pub(crate) fn is_in_family(family: Family, field: Field) -> bool {
    match field {
        Field::ArpOperation | Field::ArpSenderEther | Field::ArpSenderIp | Field::ArpTargetIp => {
            matches!(family, Family::Arp | Family::Bridge | Family::Netdev)
        }
        Field::IpSaddr | Field::IpDaddr => !matches!(family, Family::Arp | Family::Ip6),
        Field::Ip6Saddr | Field::Ip6Daddr => !matches!(family, Family::Arp | Family::Ip),
        _ => true,
    }
}
