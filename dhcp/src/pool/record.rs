//! What is recorded of a lease, and who holds it.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use terms::Invalid;

/// Hardware type of Ethernet, which begins the identifier of a client that names itself by its address (RFC 2132 §9.14).
const ETHERNET: u8 = 1;

/// What a client is known by: option 61, or else its Ethernet address in the same form. Written as hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(Vec<u8>);

impl ClientId {
    /// The identifier of a client that sends none.
    #[must_use]
    pub fn of_ethernet(mac: [u8; 6]) -> Self {
        Self(std::iter::once(ETHERNET).chain(mac).collect())
    }

    /// Option 61 has at least two bytes and at most 255.
    #[must_use]
    pub fn of_option(bytes: &[u8]) -> Option<Self> {
        (2..=255).contains(&bytes.len()).then(|| Self(bytes.to_vec()))
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for ClientId {
    type Err = Invalid;

    /// Pairs of hexadecimal digits, with or without colons.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
        let pair = |pair: &[u8]| match pair {
            [high, low] => {
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                Some(digit(*high)? << 4 | digit(*low)?)
            }
            _ => None,
        };
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(pair).collect();
        let id = bytes.and_then(|bytes| Self::of_option(&bytes));
        id.ok_or_else(|| Invalid::new("client identifier", text, "must be 2 to 255 bytes in hexadecimal digits"))
    }
}

/// What became of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    /// Acknowledged.
    Leased,
    /// Given back by its client, which gets it again if it is still free.
    Released,
    /// Used by another host, as this client reported or an answer to ARP showed; not given out for a time.
    Declined,
}

/// The last that is to be known of an address. It replaces every earlier record of the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The address.
    pub address: Ipv4Addr,
    /// Who holds or held it.
    pub client: ClientId,
    /// The client's Ethernet address.
    pub mac: [u8; 6],
    /// What became of it.
    pub state: LeaseState,
    /// When it may be given to another client, in whole seconds since the epoch.
    pub until: Duration,
    /// For how long that was when it was recorded; unknown for what an earlier release recorded.
    pub granted: Option<Duration>,
    /// The name the client gave itself; may be empty.
    pub hostname: String,
}
