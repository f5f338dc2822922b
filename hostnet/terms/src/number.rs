//! Numbers with a range, and the protocols that have ports.

use std::fmt;
use std::str::FromStr;

use crate::Invalid;

macro_rules! ranged {
    ($(#[$doc:meta])* $name:ident($int:ty) in $range:expr, $what:literal, $rule:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "u64", into = "u64")]
        pub struct $name($int);

        impl $name {
            /// The number, within the range of the type.
            #[must_use]
            pub const fn value(self) -> $int {
                self.0
            }
        }

        impl TryFrom<u64> for $name {
            type Error = Invalid;

            fn try_from(value: u64) -> Result<Self, Invalid> {
                <$int>::try_from(value)
                    .ok()
                    .filter(|value| ($range).contains(value))
                    .map(Self)
                    .ok_or_else(|| Invalid::new($what, &value.to_string(), $rule))
            }
        }

        impl From<$name> for u64 {
            fn from(value: $name) -> Self {
                Self::from(value.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

ranged!(
    /// Largest payload of a link in bytes: 68 (RFC 791 §3.2) to 65,535 (ETH_MAX_MTU of `linux/if_ether.h`).
    Mtu(u32) in 68..=65_535,
    "MTU",
    "must be from 68 to 65535 bytes"
);
ranged!(
    /// Number of queue pairs of a NIC: 1 to 256 (MAX_TAP_QUEUES of the kernel's tun driver).
    Queues(u16) in 1..=256,
    "queue count",
    "must be from 1 to 256"
);
ranged!(
    /// A VLAN identifier: 1 to 4094 (IEEE 802.1Q §9.6).
    VlanId(u16) in 1..=4094,
    "VLAN ID",
    "must be from 1 to 4094"
);

impl Queues {
    /// A single queue pair: the default.
    pub const ONE: Self = Self(1);
}

impl Default for Queues {
    fn default() -> Self {
        Self::ONE
    }
}

/// A transport protocol with port numbers, written as Kubernetes does: `TCP`, `UDP`, `SCTP`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Protocol {
    /// TCP (RFC 9293), the default.
    #[default]
    Tcp,
    /// UDP (RFC 768).
    Udp,
    /// SCTP (RFC 9260).
    Sctp,
}

impl FromStr for Protocol {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "TCP" => Ok(Self::Tcp),
            "UDP" => Ok(Self::Udp),
            "SCTP" => Ok(Self::Sctp),
            _ => Err(Invalid::new("protocol", text, "must be TCP, UDP or SCTP")),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

crate::serde_as_text!(Protocol);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_at_both_ends() {
        assert!(Mtu::try_from(67).is_err() && Mtu::try_from(68).is_ok());
        assert!(Mtu::try_from(65_535).is_ok() && Mtu::try_from(65_536).is_err());
        assert!(Queues::try_from(0).is_err() && Queues::try_from(257).is_err());
        assert_eq!(VlanId::try_from(4095).unwrap_err().to_string(), "VLAN ID \"4095\": must be from 1 to 4094");
    }
}
