//! Network names, addresses and numbers as types: code after a parser never holds a `String` where one of these is meant.

mod ifname;
mod json_path;
mod mac;
mod name;
mod number;
mod ordered;
mod visible;

pub use ifname::IfName;
pub use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
pub use json_path::json_path;
pub use mac::MacAddr;
pub use name::{ContainerId, NetworkName, ObjectKey};
pub use number::{Mtu, Protocol, Queues, VlanId};
pub use ordered::{insert_ordered, ordered_once};
pub use visible::visible;

/// A value that is not what its type demands.
///
/// The message names the type, the value (cut at 80 characters) and the rule it breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?}: {rule}")]
pub struct Invalid {
    what: &'static str,
    value: String,
    rule: &'static str,
}

impl Invalid {
    /// Says that `value` is no `what` because of `rule`.
    #[must_use]
    pub fn new(what: &'static str, value: &str, rule: &'static str) -> Self {
        let value = value.chars().take(80).collect();
        Self { what, value, rule }
    }

    /// The rule that was broken, for callers that name the field and value themselves.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        self.rule
    }
}

/// Implements serde through `Display` and `FromStr`, so that JSON and text accept the same words.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_text;
