//! What reading found: complaints and warnings, each with the path of its field.

use std::cell::RefCell;
#[cfg(test)]
use std::collections::BTreeMap;
use std::fmt;

/// Complaints and warnings of one document, in the order of reading.
///
/// Interior mutability lets nodes and fields of the same document be held side by side while they are compared.
#[derive(Default)]
pub(crate) struct Findings {
    complaints: RefCell<Vec<Finding>>,
    warnings: RefCell<Vec<Warning>>,
    #[cfg(test)]
    account: RefCell<BTreeMap<String, Account>>,
}

/// What becomes of a field, of several answers the last.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Account {
    Read,
    WithoutEffect,
    Lacking,
}

/// A complaint about a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) path: String,
    pub(crate) problem: Problem,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// The API has it, nothing here implements it; with what exactly, or what to do instead.
    NotSupported(Option<String>),
    /// The API has no such field.
    UnknownField {
        /// A field of that object with nearly the same name.
        similar: Option<String>,
    },
    /// It must be given.
    Required,
    /// Its value breaks a rule.
    Invalid(String),
    /// The text is no YAML or JSON, too large, too deep, or has a key twice.
    Syntax(String),
}

/// A field that is read and has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The path of the field.
    pub path: String,
    /// Where it has no effect.
    pub scope: Scope,
    /// Why that is harmless.
    pub why: String,
}

/// Where a field has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// On a machine without a cluster; controllers obey it.
    Local,
    /// Anywhere.
    Everywhere,
}

impl Findings {
    pub(crate) fn report(&self, path: &str, problem: Problem) {
        self.complaints.borrow_mut().push(Finding { path: path.to_owned(), problem });
    }

    pub(crate) fn warn(&self, path: &str, scope: Scope, why: String) {
        self.warnings.borrow_mut().push(Warning { path: path.to_owned(), scope, why });
    }

    /// Keeps that a field was looked for, whether it was there or not: the test of the page of fields asks.
    #[cfg(test)]
    pub(crate) fn note(&self, path: &str, account: Account) {
        let mut all = self.account.borrow_mut();
        let kept = all.entry(path.to_owned()).or_insert(account);
        *kept = account.max(*kept);
    }

    #[cfg(test)]
    pub(crate) fn account(&self) -> BTreeMap<String, Account> {
        self.account.borrow().clone()
    }

    pub(crate) fn into_parts(self) -> (Vec<Finding>, Vec<Warning>) {
        (self.complaints.into_inner(), self.warnings.into_inner())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSupported(None) => f.write_str("not supported"),
            Self::NotSupported(Some(detail)) => write!(f, "not supported: {detail}"),
            Self::UnknownField { similar: None } => f.write_str("unknown field"),
            Self::UnknownField { similar: Some(name) } => write!(f, "unknown field, is {name} meant?"),
            Self::Required => f.write_str("is required"),
            Self::Invalid(rule) => f.write_str(rule),
            Self::Syntax(reason) => f.write_str(reason),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => self.problem.fmt(f),
            path => write!(f, "{path}: {}", self.problem),
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: has no effect: {}", self.path, self.why)
    }
}
