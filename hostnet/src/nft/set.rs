//! Sets and maps.

use serde::{Deserialize, Serialize};

use super::{Value, Verdict};
use crate::omit::is_default;

/// A named set, or a map if it has `data`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Set {
    /// Its name, unique in the table.
    pub name: String,
    /// What the key consists of; more than one is a concatenation.
    pub key: Vec<ValueKind>,
    /// What a map yields; `None` for a set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<SetData>,
    /// What its elements may be.
    #[serde(default, skip_serializing_if = "is_default")]
    pub flags: SetFlags,
    /// Seconds after which an element vanishes by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u32>,
    /// Most elements it may hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u32>,
    /// What it holds to begin with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elements: Vec<Element>,
}

impl Set {
    /// A set without elements whose key has these parts.
    #[must_use]
    pub fn new(name: &str, key: impl IntoIterator<Item = ValueKind>) -> Self {
        Self {
            name: name.to_owned(),
            key: key.into_iter().collect(),
            data: None,
            flags: SetFlags::default(),
            timeout_seconds: None,
            size: None,
            elements: Vec::new(),
        }
    }

    /// An empty map to values.
    #[must_use]
    pub fn map(
        name: &str,
        key: impl IntoIterator<Item = ValueKind>,
        data: impl IntoIterator<Item = ValueKind>,
    ) -> Self {
        Self { data: Some(SetData::Values(data.into_iter().collect())), ..Self::new(name, key) }
    }

    /// An empty map to verdicts.
    #[must_use]
    pub fn verdict_map(name: &str, key: impl IntoIterator<Item = ValueKind>) -> Self {
        Self { data: Some(SetData::Verdict), ..Self::new(name, key) }
    }

    /// The same, whose elements may be ranges.
    #[must_use]
    pub fn of_ranges(mut self) -> Self {
        self.flags.interval = true;
        self
    }

    /// The same, filled by rules; elements vanish after a time without update.
    #[must_use]
    pub fn dynamic(mut self, timeout_seconds: u32, size: u32) -> Self {
        self.flags.dynamic = true;
        self.timeout_seconds = Some(timeout_seconds);
        self.size = Some(size);
        self
    }

    /// The same with one more element.
    #[must_use]
    pub fn element(mut self, element: Element) -> Self {
        self.elements.push(element);
        self
    }
}

/// What a key or a datum is: its width, its byte order, and how `nft` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "each is named for the values of the set")]
pub enum ValueKind {
    Ipv4,
    Ipv6,
    Ether,
    L4proto,
    Port,
    Ifname,
    Mark,
    EtherType,
    IcmpType,
    Icmpv6Type,
    ArpOperation,
    /// A bare number of 32 bits in the host's byte order.
    Number,
}

/// What a map returns for a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SetData {
    /// What to do with the packet.
    Verdict,
    /// Values; more than one is a concatenation.
    Values(Vec<ValueKind>),
}

/// What a set's elements may be (NFT_SET_* of `linux/netfilter/nf_tables.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SetFlags {
    /// Elements may be ranges (NFT_SET_INTERVAL).
    #[serde(skip_serializing_if = "is_default")]
    pub interval: bool,
    /// Rules may add elements (NFT_SET_EVAL).
    #[serde(skip_serializing_if = "is_default")]
    pub dynamic: bool,
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Element {
    /// Its key, one item for each kind of the set's key.
    pub key: Vec<ElementKey>,
    /// What a map yields for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<ElementData>,
    /// A text for readers, as `comment` in `nft`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

impl Element {
    /// An element of a set.
    #[must_use]
    pub fn of<V: Into<Value>>(key: impl IntoIterator<Item = V>) -> Self {
        Self { key: key.into_iter().map(|value| ElementKey::Is(value.into())).collect(), data: None, comment: None }
    }

    /// An element of a set of ranges.
    #[must_use]
    pub fn range(from: impl Into<Value>, to: impl Into<Value>) -> Self {
        Self { key: vec![ElementKey::Range(from.into(), to.into())], data: None, comment: None }
    }

    /// The same element, for a map that returns these values for it.
    #[must_use]
    pub fn to<V: Into<Value>>(mut self, data: impl IntoIterator<Item = V>) -> Self {
        self.data = Some(ElementData::Values(data.into_iter().map(Into::into).collect()));
        self
    }

    /// The same, yielding a verdict.
    #[must_use]
    pub fn verdict(mut self, verdict: Verdict) -> Self {
        self.data = Some(ElementData::Verdict(verdict));
        self
    }
}

/// One item of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ElementKey {
    /// This value alone.
    Is(Value),
    /// From the first to the second, both included.
    Range(Value, Value),
}

/// What a map yields for an element.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ElementData {
    /// What to do with the packet.
    Verdict(Verdict),
    /// Values, one for each kind of the map's data.
    Values(Vec<Value>),
}
