//! How a table differs from what was written.

use std::fmt;

use super::{RuleFacts, TableId};

/// One difference of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the object of that name")]
pub enum TableDrift {
    /// The table is not there.
    TableMissing(TableId),
    /// A chain is not there.
    ChainMissing { table: TableId, chain: String },
    /// A chain has another hook, priority, device or policy.
    ChainHook { table: TableId, chain: String },
    /// A chain is there that was not written.
    ChainAdded { table: TableId, chain: String },
    /// A rule is not there, or not as it was written.
    RuleMissing { table: TableId, chain: String, comment: Option<String> },
    /// A rule is there that was not written.
    RuleAdded { table: TableId, chain: String, rule: Box<RuleFacts> },
    /// A set is not there.
    SetMissing { table: TableId, set: String },
    /// A set has other elements.
    SetElements { table: TableId, set: String },
}

impl TableDrift {
    /// Whether something is there that was not written, and nothing is missing.
    #[must_use]
    pub fn is_addition(&self) -> bool {
        matches!(self, Self::ChainAdded { .. } | Self::RuleAdded { .. })
    }
}

impl fmt::Display for TableDrift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TableMissing(table) => write!(f, "table {table} is missing"),
            Self::ChainMissing { table, chain } => write!(f, "chain {table} {chain} is missing"),
            Self::ChainHook { table, chain } => write!(f, "chain {table} {chain} has another hook, priority or policy"),
            Self::ChainAdded { table, chain } => write!(f, "chain {table} {chain} was added"),
            Self::RuleMissing { table, chain, comment } => {
                let name = comment.as_deref().unwrap_or("without a comment");
                write!(f, "rule \"{name}\" of chain {table} {chain} is missing or altered")
            }
            Self::RuleAdded { table, chain, rule } => {
                write!(f, "rule \"{rule}\" (handle {}) of chain {table} {chain} was added", rule.handle)
            }
            Self::SetMissing { table, set } => write!(f, "set {table} {set} is missing"),
            Self::SetElements { table, set } => write!(f, "set {table} {set} has other elements"),
        }
    }
}
