//! How values look in a packet or register: width, byte order, and what `nft` calls them.

use std::net::IpAddr;

use terms::{IfName, IpNetwork, MacAddr};

use super::{Field, Value, ValueKind};

/// Width and byte order of a value in a register, packet or set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Ipv4,
    Ipv6,
    Ether,
    Name,
    /// A number of that many bytes in network order.
    Network(usize),
    /// A number of 32 bits in the host's order.
    Host,
    /// So many bytes of a type that only other programs use.
    Bytes(usize),
}

/// What no nft rule or set can express.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum NftError {
    /// A field or set cannot take the value.
    #[error("{value:?} is no value for {place}")]
    Value {
        value: Value,
        /// The field or set that cannot take it.
        place: String,
    },
    /// A field is not of the network's IP version.
    #[error("{network} is no network for {place}")]
    Network { network: IpNetwork, place: String },
    /// Another reason, as text.
    #[error("{0}")]
    Other(String),
}

impl Encoding {
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Ipv4 | Self::Host => 4,
            Self::Ipv6 | Self::Name => 16,
            Self::Ether => 6,
            Self::Network(bytes) | Self::Bytes(bytes) => bytes,
        }
    }

    /// Registers of four bytes that it fills.
    pub(crate) fn slots(self) -> u32 {
        match self {
            Self::Ipv6 | Self::Name => 4,
            Self::Ether => 2,
            Self::Bytes(bytes) => u32::try_from(bytes.div_ceil(4)).unwrap_or(u32::MAX),
            _ => 1,
        }
    }

    /// The bytes of a value, as wide as the encoding; `place` names the field in an error.
    pub(crate) fn encode(self, value: &Value, place: &dyn std::fmt::Debug) -> Result<Bytes, NftError> {
        let bytes = match (self, value) {
            (Self::Ipv4, Value::Ip(IpAddr::V4(ip))) => Bytes::of(&ip.octets()),
            (Self::Ipv6, Value::Ip(IpAddr::V6(ip))) => Bytes::of(&ip.octets()),
            (Self::Ether, Value::Mac(mac)) => Bytes::of(&mac.bytes()),
            (Self::Ether, Value::GroupMac(mac)) => Bytes::of(mac),
            (Self::Name, Value::Device(name)) => {
                Bytes::of(name.as_str().as_bytes()).map(|bytes| Bytes { length: 16, ..bytes })
            }
            (Self::Host, Value::Number(number)) => {
                u32::try_from(*number).ok().and_then(|number| Bytes::of(&number.to_ne_bytes()))
            }
            (Self::Network(width), Value::Number(number)) => {
                let bytes = number.to_be_bytes();
                let (high, low) = bytes.split_at(bytes.len().saturating_sub(width));
                Bytes::of(low).filter(|_| high.iter().all(|byte| *byte == 0))
            }
            (Self::Bytes(_), Value::Bytes(bytes)) => Bytes::of(bytes),
            _ => None,
        };
        bytes.ok_or_else(|| NftError::Value { value: value.clone(), place: format!("{place:?}") })
    }

    /// The value of bytes that the kernel lists; bytes of another length, or that are no value of this kind, stay bytes.
    pub(crate) fn decode(self, bytes: &[u8]) -> Value {
        let value = match self {
            Self::Ipv4 => <[u8; 4]>::try_from(bytes).ok().map(|octets| Value::Ip(octets.into())),
            Self::Ipv6 => <[u8; 16]>::try_from(bytes).ok().map(|octets| Value::Ip(octets.into())),
            Self::Ether => <[u8; 6]>::try_from(bytes)
                .ok()
                .map(|octets| MacAddr::new(octets).map_or(Value::GroupMac(octets), Value::Mac)),
            Self::Name => device(bytes).map(Value::Device),
            Self::Host => <[u8; 4]>::try_from(bytes).ok().map(|number| u32::from_ne_bytes(number).into()),
            Self::Network(width) => (bytes.len() == width && width <= 8)
                .then(|| Value::Number(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))),
            Self::Bytes(_) => None,
        };
        value.unwrap_or_else(|| Value::Bytes(bytes.to_vec()))
    }

    pub(crate) fn mask(self, bits: u64, place: &dyn std::fmt::Debug) -> Result<Bytes, NftError> {
        self.encode(&Value::Number(bits), place)
    }

    /// A network's address and mask.
    pub(crate) fn network(self, network: IpNetwork, place: &dyn std::fmt::Debug) -> Result<(Bytes, Bytes), NftError> {
        let pair = match (self, network) {
            (Self::Ipv4, IpNetwork::V4(v4)) => Bytes::of(&v4.network().octets()).zip(Bytes::of(&v4.mask().octets())),
            (Self::Ipv6, IpNetwork::V6(v6)) => Bytes::of(&v6.network().octets()).zip(Bytes::of(&v6.mask().octets())),
            _ => None,
        };
        pair.ok_or_else(|| NftError::Network { network, place: format!("{place:?}") })
    }
}

/// The name that bytes hold, with nothing but NULs behind it.
fn device(bytes: &[u8]) -> Option<IfName> {
    let (name, rest) = bytes.split_at_checked(bytes.iter().position(|byte| *byte == 0)?)?;
    let name = std::str::from_utf8(name).ok().filter(|_| rest.iter().all(|byte| *byte == 0))?;
    name.parse().ok()
}

/// The bytes of a value, at most as many as the longest field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes {
    /// Zero behind `length`.
    bytes: [u8; 16],
    length: usize,
}

impl Bytes {
    /// `None` if there are more than a field can have.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let mut whole = [0; 16];
        whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self { bytes: whole, length: bytes.len() })
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&self.bytes)
    }
}

impl Field {
    pub(crate) fn encoding(self) -> Encoding {
        match self {
            Self::Iifname | Self::Oifname => Encoding::Name,
            Self::IpSaddr | Self::IpDaddr | Self::ArpSenderIp | Self::ArpTargetIp | Self::CtOriginalIpDaddr => {
                Encoding::Ipv4
            }
            Self::Ip6Saddr | Self::Ip6Daddr | Self::NdTarget | Self::CtOriginalIp6Daddr => Encoding::Ipv6,
            Self::EtherSaddr | Self::EtherDaddr | Self::ArpSenderEther => Encoding::Ether,
            Self::L4proto
            | Self::Nfproto
            | Self::Pkttype
            | Self::TcpFlags
            | Self::IcmpType
            | Self::Icmpv6Type
            | Self::CtDirection => Encoding::Network(1),
            Self::Protocol
            | Self::EtherType
            | Self::TcpSport
            | Self::TcpDport
            | Self::UdpSport
            | Self::UdpDport
            | Self::ThSport
            | Self::ThDport
            | Self::ArpOperation => Encoding::Network(2),
            Self::Mark
            | Self::Iifgroup
            | Self::CtState
            | Self::CtStatus
            | Self::CtMark
            | Self::Fib { .. }
            | Self::Random { .. }
            | Self::RoundRobin { .. } => Encoding::Host,
            Self::Payload { bytes, .. } => Encoding::Bytes(usize::try_from(bytes).unwrap_or(usize::MAX)),
            Self::Meta { .. } | Self::Conntrack { .. } => Encoding::Bytes(4),
        }
    }

    /// The kind of set key that the field is, for sets made on the fly.
    pub(crate) fn kind(self) -> ValueKind {
        match self {
            Self::Iifname | Self::Oifname => ValueKind::Ifname,
            Self::L4proto => ValueKind::L4proto,
            Self::Mark | Self::CtMark => ValueKind::Mark,
            Self::Protocol | Self::EtherType => ValueKind::EtherType,
            Self::IcmpType => ValueKind::IcmpType,
            Self::Icmpv6Type => ValueKind::Icmpv6Type,
            Self::ArpOperation => ValueKind::ArpOperation,
            field => match field.encoding() {
                Encoding::Ipv4 => ValueKind::Ipv4,
                Encoding::Ipv6 => ValueKind::Ipv6,
                Encoding::Ether => ValueKind::Ether,
                Encoding::Network(2) => ValueKind::Port,
                Encoding::Network(_) => ValueKind::L4proto,
                Encoding::Name | Encoding::Host | Encoding::Bytes(_) => ValueKind::Number,
            },
        }
    }
}

impl ValueKind {
    pub(crate) fn encoding(self) -> Encoding {
        match self {
            Self::Ipv4 => Encoding::Ipv4,
            Self::Ipv6 => Encoding::Ipv6,
            Self::Ether => Encoding::Ether,
            Self::L4proto | Self::IcmpType | Self::Icmpv6Type => Encoding::Network(1),
            Self::Port | Self::EtherType | Self::ArpOperation => Encoding::Network(2),
            Self::Ifname => Encoding::Name,
            Self::Mark | Self::Number => Encoding::Host,
        }
    }

    /// `nft`'s number for the type (enum datatypes of nftables' `include/datatype.h`): the kernel keeps it for `nft list`.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Number => 4,
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Ether => 9,
            Self::EtherType => 10,
            Self::ArpOperation => 11,
            Self::L4proto => 12,
            Self::Port => 13,
            Self::IcmpType => 14,
            Self::Mark => 19,
            Self::Icmpv6Type => 29,
            Self::Ifname => 41,
        }
    }
}

/// The kinds of which a type's number tells; `None` if one of them is unknown here.
pub(crate) fn kinds_of(number: u32) -> Option<Vec<ValueKind>> {
    const ALL: [ValueKind; 12] = [
        ValueKind::Number,
        ValueKind::Ipv4,
        ValueKind::Ipv6,
        ValueKind::Ether,
        ValueKind::EtherType,
        ValueKind::ArpOperation,
        ValueKind::L4proto,
        ValueKind::Port,
        ValueKind::IcmpType,
        ValueKind::Mark,
        ValueKind::Icmpv6Type,
        ValueKind::Ifname,
    ];
    let mut kinds = Vec::new();
    let mut rest = number;
    while rest != 0 {
        kinds.insert(0, *ALL.iter().find(|kind| kind.number() == rest & 0x3f)?);
        rest >>= 6;
    }
    (!kinds.is_empty()).then_some(kinds)
}

/// `nft`'s number for a concatenation: six bits for each part.
pub(crate) fn type_number(kinds: &[ValueKind]) -> u32 {
    kinds.iter().fold(0, |number, kind| number << 6 | kind.number())
}

/// Bytes of a key: a lone part as it is, parts of a concatenation padded.
pub(crate) fn key_bytes(kinds: &[ValueKind]) -> u32 {
    let bytes = match kinds {
        [only] => only.encoding().bytes(),
        parts => parts.iter().map(|kind| kind.encoding().bytes().next_multiple_of(4)).sum(),
    };
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
