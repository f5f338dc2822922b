//! What a table would look like if it were as asked for, and where the kernel's differs.

use std::cell::RefCell;

use terms::IfName;

use super::canon::{Contents, body, element_facts, joined};
use super::compile::{TranslateContext, compile};
use super::drift::TableDrift;
use super::encode::encode_element;
use super::expression::SetRef;
use super::same::same_body;
use super::{ChainFacts, ElementFacts, NftError, RuleFacts, Set, SetFacts, Table, TableFacts};
use crate::attributes::Writer;
use crate::facts::Facts;

impl TableFacts {
    /// What the kernel would list for `table`, in a namespace with the links of `facts`; handles are 0.
    ///
    /// # Errors
    /// When the table cannot be expressed, or names a link that is not there.
    pub fn expected(table: &Table, facts: &Facts) -> Result<Self, NftError> {
        let chains = table.chains.iter().map(|chain| {
            let rules = chain.rules.iter().map(|rule| {
                let mut writer = Writer::default();
                let mut around = OfflineCompiler { facts, sets: RefCell::default() };
                compile(&mut writer, table.id.family, rule, &mut around)?;
                let (body, counter) = body(&writer.bytes, &|_, number| around.contents(number));
                Ok(RuleFacts { handle: 0, comment: rule.comment.clone(), counter, body })
            });
            let rules = rules.collect::<Result<_, NftError>>()?;
            Ok(ChainFacts { name: chain.name.clone(), base: chain.base.clone(), rules })
        });
        Ok(Self { id: table.id.clone(), chains: chains.collect::<Result<_, NftError>>()?, sets: expected_sets(table)? })
    }

    /// Where `found` differs from this; nothing if it is the same. Counters and handles do not matter, nor do the elements of
    /// sets that rules fill.
    #[must_use]
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

    fn rule_differences(&self, chain: &ChainFacts, found: &ChainFacts, drift: &mut Vec<TableDrift>) {
        let mut rest = found.rules.as_slice();
        let mut added = Vec::new();
        for rule in &chain.rules {
            match rest.iter().position(|other| other.body == rule.body) {
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
            handle: rule.handle,
        }));
    }
}

/// Whether sets hold the same, in whatever order; when elements expire does not matter.
fn same_elements(one: &[ElementFacts], other: &[ElementFacts]) -> bool {
    joined(one) == joined(other)
}

/// What the kernel would list for the named sets of `table`.
pub(crate) fn expected_sets(table: &Table) -> Result<Vec<SetFacts>, NftError> {
    let sets = table.sets.iter().map(|set| {
        let mut elements =
            set.elements.iter().map(|element| encode_element(set, element)).collect::<Result<Vec<_>, _>>()?;
        elements.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(SetFacts {
            name: set.name.clone(),
            dynamic: set.flags.dynamic,
            elements: elements.iter().map(element_facts).collect(),
        })
    });
    sets.collect()
}

/// The rules of a table, met one after another as the kernel lists them.
pub(crate) struct Expected<'a> {
    table: &'a Table,
    facts: &'a Facts,
    /// How many rules of each chain were met.
    met: Vec<usize>,
    writer: Writer,
}

impl<'a> Expected<'a> {
    /// In a namespace with the links of `facts`.
    pub(crate) fn of(table: &'a Table, facts: &'a Facts) -> Self {
        Self { table, facts, met: vec![0; table.chains.len()], writer: Writer::default() }
    }

    /// Whether the next rule of a chain, whose name ends with NUL, is the one with this body.
    pub(crate) fn next_is(&mut self, chain: &[u8], body: &[u8], contents: &Contents<'_>) -> bool {
        let is_it = |name: &str| chain.strip_suffix(b"\0") == Some(name.as_bytes());
        let chains = self.table.chains.iter().zip(&mut self.met);
        let Some((chain, met)) = chains.into_iter().find(|(chain, _)| is_it(&chain.name)) else { return false };
        let Some(rule) = chain.rules.get(*met) else { return false };
        *met += 1;
        self.writer.bytes.clear();
        let mut around = OfflineCompiler { facts: self.facts, sets: RefCell::default() };
        compile(&mut self.writer, self.table.id.family, rule, &mut around).is_ok()
            && same_body((&self.writer.bytes, &|_, number| around.contents(number)), (body, contents))
    }

    /// Whether all rules were met.
    pub(crate) fn is_complete(&self) -> bool {
        self.table.chains.iter().zip(&self.met).all(|(chain, met)| chain.rules.len() == *met)
    }
}

/// Compiling aside from any transaction: indices come from facts, sets made on the fly are kept.
struct OfflineCompiler<'a> {
    facts: &'a Facts,
    sets: RefCell<Vec<String>>,
}

impl OfflineCompiler<'_> {
    fn contents(&self, number: Option<u32>) -> Option<String> {
        let at = usize::try_from(number?).ok()?.checked_sub(1)?;
        self.sets.borrow().get(at).cloned()
    }
}

impl TranslateContext for OfflineCompiler<'_> {
    fn link_index(&mut self, link: &IfName) -> Result<u32, NftError> {
        let found = self.facts.link(link).map(|link| link.index);
        found.ok_or_else(|| NftError::Other(format!("there is no link {link}")))
    }

    fn unnamed_set(&mut self, set: Set) -> Result<SetRef, NftError> {
        let elements =
            set.elements.iter().map(|element| encode_element(&set, element).map(|encoded| element_facts(&encoded)));
        let elements = elements.collect::<Result<Vec<_>, _>>()?;
        let mut sets = self.sets.borrow_mut();
        sets.push(joined(&elements));
        Ok(SetRef { name: set.name, id: u32::try_from(sets.len()).ok() })
    }
}
