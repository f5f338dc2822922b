//! The fields of one object, and the account of those that were asked for.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

#[cfg(test)]
use super::findings::Account;
use super::{Node, Problem, Scope};

/// An object whose fields are read by name; the rest is unknown.
pub(crate) struct Fields<'a> {
    node: Node<'a>,
    map: &'a Map<String, Value>,
    known: RefCell<BTreeSet<&'static str>>,
    skip: Cell<bool>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(node: &Node<'a>, map: &'a Map<String, Value>) -> Self {
        Self { node: node.clone(), map, known: RefCell::default(), skip: Cell::default() }
    }

    /// The object itself, for complaints about the whole.
    pub(crate) fn node(&self) -> &Node<'a> {
        &self.node
    }

    /// The field, if it is there and not null.
    pub(crate) fn field(&self, name: &'static str) -> Option<Node<'a>> {
        self.known.borrow_mut().insert(name);
        #[cfg(test)]
        self.node.findings.note(&self.node.named(name).path, Account::Read);
        self.map.get(name).filter(|value| !value.is_null()).map(|value| self.node.member(name, value))
    }

    /// The field, or a complaint that it is missing.
    pub(crate) fn required(&self, name: &'static str) -> Option<Node<'a>> {
        let found = self.field(name);
        if found.is_none() {
            self.node.findings.report(&self.node.named(name).path, Problem::Required);
        }
        found
    }

    /// The field, unless it is empty as Go's encoders leave it: `""`, `0`, `false`, `[]`, null.
    pub(crate) fn set(&self, name: &'static str) -> Option<Node<'a>> {
        self.field(name).filter(|node| !is_zero(node.value))
    }

    pub(crate) fn text(&self, name: &'static str) -> Option<&'a str> {
        self.field(name)?.text()
    }

    /// Text that is not empty.
    pub(crate) fn filled_text(&self, name: &'static str) -> Option<&'a str> {
        self.text(name).filter(|text| !text.is_empty())
    }

    pub(crate) fn boolean(&self, name: &'static str) -> Option<bool> {
        self.field(name)?.boolean()
    }

    pub(crate) fn integer<T: TryFrom<u64> + Into<u64> + Copy>(
        &self,
        name: &'static str,
        range: RangeInclusive<T>,
    ) -> Option<T> {
        self.field(name)?.integer(range)
    }

    pub(crate) fn one_of<T: Copy>(&self, name: &'static str, words: &[(&str, T)], lacking: &[&str]) -> Option<T> {
        self.set(name)?.one_of(words, lacking)
    }

    pub(crate) fn items(&self, name: &'static str) -> Vec<Node<'a>> {
        self.field(name).map(|node| node.items()).unwrap_or_default()
    }

    /// Fields that the API has and nothing here implements.
    pub(crate) fn unsupported(&self, names: &[&'static str]) {
        for name in names {
            #[cfg(test)]
            self.node.findings.note(&self.node.named(name).path, Account::Lacking);
            if let Some(node) = self.set(name) {
                node.findings.report(&node.path, Problem::NotSupported(None));
            }
        }
    }

    /// A field that the API has and nothing here implements, with what to do instead.
    pub(crate) fn unsupported_because(&self, name: &'static str, reason: &str) {
        #[cfg(test)]
        self.node.findings.note(&self.node.named(name).path, Account::Lacking);
        if let Some(node) = self.set(name) {
            node.refuse_unsupported(reason);
        }
    }

    /// Fields that are harmless to leave without effect, named in a warning.
    pub(crate) fn ignored(&self, scope: Scope, why: &str, names: &[&'static str]) {
        for name in names {
            #[cfg(test)]
            self.node.findings.note(&self.node.named(name).path, Account::WithoutEffect);
            if let Some(node) = self.set(name) {
                node.warn(scope, why);
            }
        }
    }

    /// Reports no complaint for the fields that were not read.
    pub(crate) fn skip_rest(&self) {
        self.skip.set(true);
    }

    pub(super) fn close(self) {
        if self.skip.get() {
            return;
        }
        let known = self.known.into_inner();
        for (name, value) in self.map.iter().filter(|(name, _)| !known.contains(name.as_str())) {
            let similar = known.iter().find(|known| is_similar(known, name)).map(|known| (*known).to_owned());
            let path = self.node.member(name, value).path;
            self.node.findings.report(&path, Problem::UnknownField { similar });
        }
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(_) => false,
    }
}

/// Whether two names differ in case alone or in one letter.
fn is_similar(known: &str, given: &str) -> bool {
    if known.eq_ignore_ascii_case(given) {
        return true;
    }
    let (known, given) = (known.as_bytes(), given.as_bytes());
    let prefix = known.iter().zip(given).take_while(|(a, b)| a == b).count();
    let suffix = known[prefix..].iter().rev().zip(given[prefix..].iter().rev()).take_while(|(a, b)| a == b).count();
    known.len() > 3 && known.len() - prefix - suffix <= 1 && given.len() - prefix - suffix <= 1
}
