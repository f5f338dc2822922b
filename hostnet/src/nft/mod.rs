//! nft tables as typed data, their transactions, and what the kernel says they are.

pub(crate) mod batch;
mod chain;
pub(crate) mod check;
mod compile;
pub(crate) mod decode;
mod drift;
pub(crate) mod element_bytes;
pub(crate) mod encoding;
mod expression;
mod family;
mod field;
mod links;
mod presupposition;
mod readback;
mod rule;
mod set;
mod statement;
mod table;
mod text;
pub(crate) mod uapi;
mod value;

pub use chain::{Base, Chain, ChainKind, Hook, Policy, priority};
pub use drift::TableDrift;
pub use encoding::NftError;
pub use family::{Family, TableId};
pub use field::{Direction, FibResult, Field, IpVersion};
pub use links::LinkIndices;
pub use readback::{ChainFacts, Counter, ElementFacts, RuleFacts, SetFacts, TableFacts};
pub use rule::Rule;
pub use set::{Element, ElementData, ElementKey, Set, SetData, SetFlags, ValueKind};
pub use statement::{Limit, NatTarget, Reject, Statement, Test, UpdateSet, Verdict, VerdictMap};
pub use table::{Command, Table, Transaction};
pub use value::{CT_ESTABLISHED, CT_INVALID, CT_NEW, CT_RELATED, CT_UNTRACKED, Value};
