//! Complaints about a manifest, with everything a reader needs to find the place.

use std::fmt;

use serde_json::Value;

use crate::reader::{Finding, Problem};

/// What is wrong with one field of one document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ManifestError {
    /// What the caller calls the text, usually a file's name.
    pub source_name: String,
    /// Number of the document, from 1.
    pub document: usize,
    /// Kind and name of the object, as far as they could be read.
    pub object: Option<String>,
    /// The field's path; empty for the document as a whole.
    pub path: String,
    /// What is wrong.
    pub problem: Problem,
}

impl ManifestError {
    pub(super) fn at(source_name: &str, document: usize, problem: Problem) -> Self {
        Self { source_name: source_name.to_owned(), document, object: None, path: String::new(), problem }
    }

    pub(super) fn of(source_name: &str, document: usize, object: &Value, finding: Finding) -> Self {
        let Finding { path, problem } = finding;
        Self { source_name: source_name.to_owned(), document, object: describe(object), path, problem }
    }
}

fn describe(object: &Value) -> Option<String> {
    let text = |value: &Value| value.as_str().map(|text| text.chars().take(80).collect::<String>());
    let kind = text(object.get("kind")?)?;
    Some(match object.pointer("/metadata/name").and_then(text) {
        Some(name) => format!("{kind} {name}"),
        None => kind,
    })
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, document {}", self.source_name, self.document)?;
        if let Some(object) = &self.object {
            write!(f, " ({object})")?;
        }
        match self.path.as_str() {
            "" => write!(f, ": {}", self.problem),
            path => write!(f, ": {path}: {}", self.problem),
        }
    }
}
