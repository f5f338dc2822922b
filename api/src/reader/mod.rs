//! Reading a document field by field: every value knows its path, every complaint is kept, every field is accounted for.
//!
//! Why not derived deserialisers: they stop at the first error, cannot tell a field that KubeVirt has and we lack from
//! an unknown one, and leave a second set of types to convert. Here a wrong value reads as an absent one and reading
//! continues, so that one run reports every complaint; the caller discards the result if there is any.

mod fields;
mod findings;

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde_json::Value;

pub(crate) use fields::Fields;
#[cfg(test)]
pub(crate) use findings::Account;
pub(crate) use findings::{Finding, Findings};
pub use findings::{Problem, Scope, Warning};

/// How much of a text a complaint repeats.
const SHOWN_CHARS: usize = 80;

/// A value somewhere in a document.
#[derive(Clone)]
pub(crate) struct Node<'a> {
    value: &'a Value,
    path: String,
    findings: &'a Findings,
}

impl<'a> Node<'a> {
    pub(crate) fn root(value: &'a Value, findings: &'a Findings) -> Self {
        Self { value, path: String::new(), findings }
    }

    pub(crate) fn value(&self) -> &'a Value {
        self.value
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Reports that the value breaks a rule.
    pub(crate) fn refuse(&self, rule: impl fmt::Display) {
        self.findings.report(&self.path, Problem::Invalid(rule.to_string()));
    }

    /// Reports that the value has not the shape that a rule asks for, with the value, shortened. Not for what may be a secret.
    pub(crate) fn expected(&self, shape: impl fmt::Display) {
        self.refuse(format!("must be {shape}, found {}", shown(self.value)));
    }

    /// Reports that nothing here implements what the value asks for.
    pub(crate) fn refuse_unsupported(&self, detail: impl fmt::Display) {
        self.findings.report(&self.path, Problem::NotSupported(Some(detail.to_string())));
    }

    /// Notes that the value is read and has no effect.
    pub(crate) fn warn(&self, scope: Scope, why: impl fmt::Display) {
        self.findings.warn(&self.path, scope, why.to_string());
    }

    /// Reads an object; what `read` did not ask for is reported as unknown.
    pub(crate) fn fields<T>(&self, read: impl FnOnce(&Fields<'a>) -> T) -> Option<T> {
        let Value::Object(map) = self.value else {
            self.expected("an object");
            return None;
        };
        let fields = Fields::new(self, map);
        let result = read(&fields);
        fields.close();
        Some(result)
    }

    /// The elements of a list.
    pub(crate) fn items(&self) -> Vec<Node<'a>> {
        let Value::Array(items) = self.value else {
            self.expected("a list");
            return Vec::new();
        };
        items
            .iter()
            .enumerate()
            .map(|(index, value)| Node { value, path: format!("{}[{index}]", self.path), findings: self.findings })
            .collect()
    }

    /// The members of an object whose keys are the user's own.
    pub(crate) fn entries(&self) -> Vec<(&'a str, Node<'a>)> {
        let Value::Object(map) = self.value else {
            self.expected("an object");
            return Vec::new();
        };
        map.iter().map(|(key, value)| (key.as_str(), self.member(key, value))).collect()
    }

    pub(crate) fn text(&self) -> Option<&'a str> {
        match self.value {
            Value::String(text) => Some(text),
            Value::Number(_) | Value::Bool(_) => {
                self.refuse(format!("must be text, found {}: put it in quotes", self.value));
                None
            }
            _ => {
                self.expected("text");
                None
            }
        }
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        let answer = self.value.as_bool();
        if answer.is_none() {
            self.expected("true or false");
        }
        answer
    }

    /// A whole number within a range.
    pub(crate) fn integer<T: TryFrom<u64> + Into<u64> + Copy>(&self, range: RangeInclusive<T>) -> Option<T> {
        let (low, high): (u64, u64) = ((*range.start()).into(), (*range.end()).into());
        let number = self.value.as_u64().filter(|number| (low..=high).contains(number));
        if number.is_none() {
            self.expected(format_args!("a whole number from {low} to {high}"));
        }
        number.and_then(|number| T::try_from(number).ok())
    }

    /// A value with a textual form of its own.
    pub(crate) fn parsed<T: FromStr<Err: fmt::Display>>(&self) -> Option<T> {
        self.text()?.parse().map_err(|error| self.refuse(error)).ok()
    }

    pub(crate) fn ip_address(&self) -> Option<IpAddr> {
        let address = self.text()?.parse().ok();
        if address.is_none() {
            self.expected("an IP address");
        }
        address
    }

    /// One of a fixed set of words; those in `lacking` are KubeVirt's or Kubernetes' and not implemented.
    pub(crate) fn one_of<T: Copy>(&self, words: &[(&str, T)], lacking: &[&str]) -> Option<T> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        if lacking.contains(&text) {
            self.refuse_unsupported(format!("{text:?}"));
        } else if found.is_none() {
            let choices: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            let rule = if let [only] = choices.as_slice() {
                format!("not {only}")
            } else {
                format!("not one of {}", choices.join(", "))
            };
            self.refuse(format!("{} is {rule}", shown(self.value)));
        }
        found
    }

    /// The node of a member, for complaints about a field that is absent.
    pub(crate) fn named(&self, name: &str) -> Node<'a> {
        self.member(name, self.value)
    }

    fn member(&self, key: &str, value: &'a Value) -> Node<'a> {
        let plain = (1..=SHOWN_CHARS).contains(&key.len())
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        let path = match (self.path.as_str(), plain) {
            ("", true) => key.to_owned(),
            (path, true) => format!("{path}.{key}"),
            (path, false) => format!("{path}[{:?}]", clip(key)),
        };
        Node { value, path, findings: self.findings }
    }
}

/// A value as a complaint shows it: short, whatever the document holds.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::String(text) => format!("{:?}", clip(text)),
        scalar => scalar.to_string(),
    }
}

fn clip(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}
