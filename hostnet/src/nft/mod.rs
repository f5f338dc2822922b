//! nft tables as typed data, their transactions, and what the kernel says they are.

mod chain;
mod field;
mod readback;
mod rule;
mod set;
mod statement;
mod table;
mod value;

pub use chain::{Base, Chain, ChainKind, Hook, Policy, priority};
pub use field::{Direction, FibResult, Field, IpVersion};
pub use readback::{ChainFacts, Counter, ElementFacts, RuleFacts, SetFacts, TableFacts};
pub use rule::Rule;
pub use set::{Element, ElementData, ElementKey, Set, SetData, SetFlags, ValueKind};
pub use statement::{NatTarget, Reject, Remember, Statement, Test, Verdict, VerdictMap};
pub use table::{Command, Family, Table, TableId, Transaction};
pub use value::{CT_ESTABLISHED, CT_INVALID, CT_NEW, CT_RELATED, CT_UNTRACKED, Value};
