//! What the kernel says its tables are.

use serde::{Deserialize, Serialize};

use super::{Base, ElementData, ElementKey, Statement, TableId};
use crate::omit::is_default;

/// A table as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TableFacts {
    /// What names a table in a namespace.
    pub id: TableId,
    /// Chains in the kernel's order.
    #[serde(default)]
    pub chains: Vec<ChainFacts>,
    /// Named sets and maps; those without a name are in their rules.
    #[serde(default)]
    pub sets: Vec<SetFacts>,
}

/// A chain as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChainFacts {
    /// At most 255 bytes, unique in the table.
    pub name: String,
    /// Where it is hooked in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// Its rules in the order of evaluation.
    #[serde(default)]
    pub rules: Vec<RuleFacts>,
}

/// A rule as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleFacts {
    /// The kernel's number for it.
    pub handle: u64,
    /// The text of `comment` in `nft`; `None` for a rule without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// What its first counter has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter: Option<Counter>,
    /// What it does: the same statements as it was written from, if it is ours and unchanged.
    #[serde(default)]
    pub statements: Vec<Statement>,
}

/// What a counter has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Counter {
    /// Since the rule was made or reset.
    pub packets: u64,
    /// From the network header on.
    pub bytes: u64,
}

/// A named set or map as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetFacts {
    /// At most 255 bytes, unique in the table.
    pub name: String,
    /// Filled by rules: its elements are not compared.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dynamic: bool,
    /// Its elements, sorted by key.
    #[serde(default)]
    pub elements: Vec<ElementFacts>,
}

/// An element as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ElementFacts {
    /// Its key, one item for each kind of the set's key.
    pub key: Vec<ElementKey>,
    /// What a map yields for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<ElementData>,
    /// Milliseconds until it vanishes; `None` for one that stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_milliseconds: Option<u64>,
}
