//! What a table would look like if it were as asked for, and where the kernel's differs.

use terms::IfName;

use super::compile::{TranslateContext, compile};
use super::decode::{DecodeContext, Unnamed, decode};
use super::drift::TableDrift;
use super::element_bytes::{ElementKinds, Encoded, encode_element};
use super::uapi::{dynset, expr};
use super::{
    ChainFacts, Counter, ElementFacts, Family, LinkIndices, NftError, Rule, RuleFacts, Set, SetFacts, Statement, Table,
    TableFacts,
};
use crate::attributes::{Writer, attribute, attributes_of};

impl TableFacts {
    /// What the kernel would list for `table`, in a namespace with these links; handles are 0.
    ///
    /// # Errors
    /// When the table cannot be expressed, or names a link that is not there.
    #[cold]
    pub fn expected(table: &Table, links: &dyn LinkIndices) -> Result<Self, NftError> {
        let mut offline = OfflineCompiler::of(table.id.family, links);
        let chains = table.chains.iter().map(|chain| {
            let rules = chain.rules.iter().map(|rule| {
                offline.compile(rule)?;
                let (statements, counter) = offline.statements();
                Ok(RuleFacts { handle: 0, comment: rule.comment.clone(), counter, statements })
            });
            let rules = rules.collect::<Result<_, NftError>>()?;
            Ok(ChainFacts { name: chain.name.clone(), base: chain.base.clone(), rules })
        });
        let chains = chains.collect::<Result<_, NftError>>()?;
        let sets = table.sets.iter().map(|set| {
            let (elements, kinds) = (encoded_elements(set)?, ElementKinds::of(set));
            Ok(SetFacts {
                name: set.name.clone(),
                dynamic: set.flags.dynamic,
                elements: elements.iter().map(|element| kinds.decode(element)).collect(),
            })
        });
        Ok(Self { id: table.id.clone(), chains, sets: sets.collect::<Result<_, NftError>>()? })
    }

    /// Where `found` differs from this; nothing if it is the same. Counters and handles do not matter, nor do the elements of
    /// sets that rules fill.
    #[must_use]
    #[cold]
    pub fn differences(&self, found: Option<&Self>) -> Vec<TableDrift> {
        let table = || self.id.clone();
        let Some(found) = found else { return vec![TableDrift::TableMissing(table())] };
        let mut drift = Vec::new();
        for chain in &self.chains {
            match found.chains.iter().find(|other| other.name == chain.name) {
                None => drift.push(TableDrift::ChainMissing { table: table(), chain: chain.name.clone() }),
                Some(other) => {
                    if other.base != chain.base {
                        drift.push(TableDrift::ChainHook { table: table(), chain: chain.name.clone() });
                    }
                    self.rule_differences(chain, other, &mut drift);
                }
            }
        }
        let is_known = |chain: &&ChainFacts| self.chains.iter().any(|known| known.name == chain.name);
        let added = found.chains.iter().filter(|chain| !is_known(chain));
        drift.extend(added.map(|chain| TableDrift::ChainAdded { table: table(), chain: chain.name.clone() }));
        for set in &self.sets {
            match found.sets.iter().find(|other| other.name == set.name) {
                None => drift.push(TableDrift::SetMissing { table: table(), set: set.name.clone() }),
                Some(other) if !set.dynamic && !same_elements(&other.elements, &set.elements) => {
                    drift.push(TableDrift::SetElements { table: table(), set: set.name.clone() });
                }
                Some(_) => {}
            }
        }
        drift
    }

    #[cold]
    fn rule_differences(&self, chain: &ChainFacts, found: &ChainFacts, drift: &mut Vec<TableDrift>) {
        let mut rest = found.rules.as_slice();
        let mut added = Vec::new();
        for rule in &chain.rules {
            match rest.iter().position(|other| other.statements == rule.statements) {
                Some(at) => {
                    let (before, after) = rest.split_at(at);
                    added.extend(before);
                    rest = after.get(1..).unwrap_or_default();
                }
                None => drift.push(TableDrift::RuleMissing {
                    table: self.id.clone(),
                    chain: chain.name.clone(),
                    comment: rule.comment.clone(),
                }),
            }
        }
        added.extend(rest);
        drift.extend(added.into_iter().map(|rule| TableDrift::RuleAdded {
            table: self.id.clone(),
            chain: chain.name.clone(),
            rule: Box::new(rule.clone()),
        }));
    }
}

/// Whether sets hold the same, in whatever order; when elements expire does not matter.
#[cold]
fn same_elements(one: &[ElementFacts], other: &[ElementFacts]) -> bool {
    let sorted = |elements: &[ElementFacts]| {
        let mut sorted: Vec<_> =
            elements.iter().map(|element| ElementFacts { expires_milliseconds: None, ..element.clone() }).collect();
        sorted.sort();
        sorted
    };
    sorted(one) == sorted(other)
}

/// The elements of a set in bytes, in the order of their keys.
pub(crate) fn encoded_elements(set: &Set) -> Result<Vec<Encoded>, NftError> {
    let mut elements = set.elements.iter().map(|one| encode_element(set, one)).collect::<Result<Vec<_>, _>>()?;
    elements.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(elements)
}

/// The rules of a table, met one after another as the kernel lists them.
///
/// The kernel mostly lists what it was given, so that is compared first; rules are decoded only where it differs.
pub(crate) struct Expected<'a> {
    table: &'a Table,
    /// How many rules of each chain were met.
    met: Vec<usize>,
    offline: OfflineCompiler<'a>,
}

impl<'a> Expected<'a> {
    /// In a namespace with these links.
    pub(crate) fn of(table: &'a Table, links: &'a dyn LinkIndices) -> Self {
        Self { table, met: vec![0; table.chains.len()], offline: OfflineCompiler::of(table.id.family, links) }
    }

    /// Whether the next rule of a chain, whose name ends with NUL, is the one with these expressions.
    ///
    /// Not inlined into callers in other crates, which are compiled for size: this loop is a third of a CHECK.
    #[inline(never)]
    pub(crate) fn next_is(&mut self, chain: &[u8], expressions: &[u8], unnamed: &Unnamed<'_>) -> bool {
        let is_it = |name: &str| chain.strip_suffix(b"\0") == Some(name.as_bytes());
        let chains = self.table.chains.iter().zip(&mut self.met);
        let Some((chain, met)) = chains.into_iter().find(|(chain, _)| is_it(&chain.name)) else { return false };
        let Some(rule) = chain.rules.get(*met) else { return false };
        *met += 1;
        if self.offline.compile(rule).is_err() {
            return false;
        }
        same_bytes(&self.offline.writer.bytes, expressions) || {
            let context = DecodeContext { family: self.table.id.family, links: self.offline.links, unnamed };
            decode(expressions, &context).0 == self.offline.statements().0
        }
    }

    /// Whether all rules were met.
    pub(crate) fn is_complete(&self) -> bool {
        self.table.chains.iter().zip(&self.met).all(|(chain, met)| chain.rules.len() == *met)
    }
}

/// Whether two rules have the same expressions, but for what counters have seen. `false` only says that decoding must tell.
fn same_bytes(mut one: &[u8], mut other: &[u8]) -> bool {
    while !one.is_empty() && !other.is_empty() {
        let (Some((left, left_rest)), Some((right, right_rest))) = (first_expression(one), first_expression(other))
        else {
            return false;
        };
        if !equal(left, right) && !same_attributes(left, right) {
            return false;
        }
        (one, other) = (left_rest, right_rest);
    }
    one.len() == other.len()
}

/// The first expression of a rule, and those after it; `None` if it is cut off.
fn first_expression(rule: &[u8]) -> Option<(&[u8], &[u8])> {
    let [low, high, ..] = *rule.first_chunk::<4>()?;
    let length = usize::from(u16::from_ne_bytes([low, high]));
    let (expression, rest) = rule.split_at_checked(length.next_multiple_of(4))?;
    Some((expression.get(4..)?, rest))
}

/// Whether two expressions are the same bytes: eight at a time, where `memcmp` of musl takes one by one.
fn equal(one: &[u8], other: &[u8]) -> bool {
    let (left, left_rest) = one.as_chunks::<8>();
    let (right, right_rest) = other.as_chunks::<8>();
    let words = |chunks: &[u8; 8]| u64::from_ne_bytes(*chunks);
    one.len() == other.len()
        && left.iter().zip(right).all(|(left, right)| words(left) == words(right))
        && left_rest.iter().zip(right_rest).all(|(left, right)| left == right)
}

/// Whether two expressions have the same name and attributes. The kernel lists attributes in an order of its own, and some
/// that are zero, which means the same as absent; so does the number of a dynamic set, which counts in its transaction alone.
fn same_attributes(one: &[u8], other: &[u8]) -> bool {
    let Some(name) = attribute(one, expr::NAME).filter(|name| attribute(other, expr::NAME) == Some(*name)) else {
        return false;
    };
    if name == b"counter\0" {
        return true;
    }
    let passed_over = if name == b"dynset\0" { dynset::SET_ID } else { 0 };
    let telling = |expression| {
        attributes_of(attribute(expression, expr::DATA).unwrap_or_default())
            .filter(move |(kind, value)| *kind != passed_over && value.iter().any(|byte| *byte != 0))
    };
    let mut count = 0;
    telling(one).all(|wanted| {
        count += 1;
        telling(other).any(|(kind, value)| kind == wanted.0 && equal(value, wanted.1))
    }) && telling(other).count() == count
}

/// Room for the expressions of a rule: none of a wiring has more.
const RULE_BYTES: usize = 2048;

/// Compiles outside of any transaction: indices come from a snapshot, sets without a name are kept.
struct OfflineCompiler<'a> {
    family: Family,
    links: &'a dyn LinkIndices,
    writer: Writer,
    /// The sets without a name of the rule compiled last.
    sets: Vec<Vec<Encoded>>,
}

impl<'a> OfflineCompiler<'a> {
    fn of(family: Family, links: &'a dyn LinkIndices) -> Self {
        Self { family, links, writer: Writer { bytes: Vec::with_capacity(RULE_BYTES) }, sets: Vec::new() }
    }

    /// Puts a rule's expressions into `writer`.
    fn compile(&mut self, rule: &Rule) -> Result<(), NftError> {
        let mut writer = std::mem::take(&mut self.writer);
        writer.bytes.clear();
        self.sets.clear();
        let compiled = compile(&mut writer, self.family, rule, self);
        self.writer = writer;
        compiled
    }

    /// The statements of the rule that was compiled last, as they are read back from the kernel.
    #[cold]
    fn statements(&self) -> (Vec<Statement>, Option<Counter>) {
        let unnamed = |_: &str, number: Option<u32>| {
            let at = usize::try_from(number?).ok()?.checked_sub(1)?;
            self.sets.get(at).map(Vec::as_slice)
        };
        decode(&self.writer.bytes, &DecodeContext { family: self.family, links: self.links, unnamed: &unnamed })
    }
}

impl TranslateContext for OfflineCompiler<'_> {
    fn link_index(&mut self, link: &IfName) -> Result<u32, NftError> {
        self.links.index_of(link).ok_or_else(|| NftError::Other(format!("there is no link {link}")))
    }

    fn unnamed_set(&mut self, set: Set) -> Result<u32, NftError> {
        self.sets.push(encoded_elements(&set)?);
        Ok(u32::try_from(self.sets.len()).unwrap_or(u32::MAX))
    }
}
