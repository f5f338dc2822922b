//! Tables and the transactions that change them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Chain, Element, Family, Rule, Set, TableId};

/// A table with all it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Table {
    /// What names a table in a namespace.
    pub id: TableId,
    /// Named sets and maps, made before the chains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<Set>,
    /// Chains; they may name each other in any order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chains: Vec<Chain>,
}

impl Table {
    /// A table without sets and chains.
    #[must_use]
    pub fn new(family: Family, name: &str) -> Self {
        Self { id: TableId::new(family, name), sets: Vec::new(), chains: Vec::new() }
    }

    /// The same with one more set or map.
    #[must_use]
    pub fn set(mut self, set: Set) -> Self {
        self.sets.push(set);
        self
    }

    /// The same with one more chain.
    #[must_use]
    pub fn chain(mut self, chain: Chain) -> Self {
        self.chains.push(chain);
        self
    }
}

/// Commands that take effect together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Transaction {
    /// In the order in which the kernel sees them.
    pub commands: Vec<Command>,
}

impl Transaction {
    /// A transaction that adds whole tables, none of which may exist.
    #[must_use]
    pub fn add(tables: impl IntoIterator<Item = Table>) -> Self {
        Self { commands: tables.into_iter().map(Command::AddTable).collect() }
    }

    /// A transaction that puts these tables in the place of those of the same names, if there are any.
    #[must_use]
    pub fn replace(tables: impl IntoIterator<Item = Table>) -> Self {
        Self { commands: tables.into_iter().map(Command::ReplaceTable).collect() }
    }

    /// A transaction that removes tables with all they hold; one that is not there is no error.
    #[must_use]
    pub fn delete(tables: impl IntoIterator<Item = TableId>) -> Self {
        Self { commands: tables.into_iter().map(Command::DeleteTable).collect() }
    }
}

/// One command of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "each field is the object of that name, or its name")]
pub enum Command {
    /// Adds a table with all it holds; it must not exist.
    AddTable(Table),
    /// Puts a table in the place of the one of that name, if there is one.
    ReplaceTable(Table),
    /// Removes a table with all it holds, if it is there.
    DeleteTable(TableId),
    /// Adds a set or map with its elements to a table that exists.
    AddSet { table: TableId, set: Set },
    /// Removes a set or map; no rule may look into it.
    DeleteSet { table: TableId, set: String },
    /// Adds a chain with its rules to a table that exists.
    AddChain { table: TableId, chain: Chain },
    /// Removes a chain and its rules; nothing may jump to it.
    DeleteChain { table: TableId, chain: String },
    /// Removes all rules of a chain.
    FlushChain { table: TableId, chain: String },
    /// Appends a rule to a chain that exists.
    AddRule { table: TableId, chain: String, rule: Rule },
    /// Removes one rule by its handle.
    DeleteRule {
        table: TableId,
        chain: String,
        /// The kernel's number for the rule, from [`super::RuleFacts`].
        handle: u64,
    },
    /// Adds elements to a set or map that exists; `set.elements` is what is added.
    AddElements {
        table: TableId,
        /// The set as it was declared, which says how elements are encoded.
        set: Set,
    },
    /// Removes elements from a set or map that exists; `set.elements` is what is removed.
    DeleteElements {
        table: TableId,
        /// The set as it was declared, which says how elements are encoded.
        set: Set,
    },
    /// Removes all elements of a set or map.
    FlushSet { table: TableId, set: String },
}

impl Command {
    /// The table that it changes or is in.
    #[must_use]
    pub fn table(&self) -> &TableId {
        match self {
            Self::AddTable(table) | Self::ReplaceTable(table) => &table.id,
            Self::DeleteTable(table)
            | Self::AddSet { table, .. }
            | Self::DeleteSet { table, .. }
            | Self::AddChain { table, .. }
            | Self::DeleteChain { table, .. }
            | Self::FlushChain { table, .. }
            | Self::AddRule { table, .. }
            | Self::DeleteRule { table, .. }
            | Self::AddElements { table, .. }
            | Self::DeleteElements { table, .. }
            | Self::FlushSet { table, .. } => table,
        }
    }

    /// A command that adds these elements to a set declared like `set`.
    #[must_use]
    pub fn add_elements(table: &TableId, set: &Set, elements: Vec<Element>) -> Self {
        Self::AddElements { table: table.clone(), set: Set { elements, ..set.clone() } }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddTable(table) => write!(f, "add table {}", table.id),
            Self::ReplaceTable(table) => write!(f, "replace table {}", table.id),
            Self::DeleteTable(table) => write!(f, "delete table {table}"),
            Self::AddSet { table, set } => write!(f, "add set {table} {}", set.name),
            Self::DeleteSet { table, set } => write!(f, "delete set {table} {set}"),
            Self::AddChain { table, chain } => write!(f, "add chain {table} {}", chain.name),
            Self::DeleteChain { table, chain } => write!(f, "delete chain {table} {chain}"),
            Self::FlushChain { table, chain } => write!(f, "flush chain {table} {chain}"),
            Self::AddRule { table, chain, rule } => {
                write!(f, "add rule {table} {chain} \"{}\"", rule.comment.as_deref().unwrap_or_default())
            }
            Self::DeleteRule { table, chain, handle } => write!(f, "delete rule {table} {chain} handle {handle}"),
            Self::AddElements { table, set } => {
                write!(f, "add {} elements to {table} {}", set.elements.len(), set.name)
            }
            Self::DeleteElements { table, set } => {
                write!(f, "delete {} elements of {table} {}", set.elements.len(), set.name)
            }
            Self::FlushSet { table, set } => write!(f, "flush set {table} {set}"),
        }
    }
}
