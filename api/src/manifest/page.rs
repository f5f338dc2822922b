//! The page of fields, `MANIFESTS.md`, held against what the reader looks for: it shows each field that is read, names each
//! other that KubeVirt or Kubernetes has, and calls none what it is not.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::reader::Account;

const PAGE: &str = include_str!("../../MANIFESTS.md");

/// What the page shows, and its sentences.
pub(super) fn shown_and_said() -> (Vec<&'static str>, String) {
    let parts: Vec<_> = PAGE.split("```").collect();
    let shown = parts.iter().filter_map(|part| part.strip_prefix("yaml\n")).collect();
    (shown, parts.iter().step_by(2).copied().collect())
}

fn quoted(paragraph: &str) -> impl Iterator<Item = &str> {
    paragraph.split('`').skip(1).step_by(2)
}

/// Every path that a value has, with the numbers of elements, as the reader writes them.
fn paths(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                paths(value, &path, found);
                found.insert(path);
            }
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, item)| paths(item, &format!("{path}[{n}]"), found));
        }
        _ => {}
    }
}

/// One path for all that are read alike: elements of a list, both probes, the metadata of every kind, and an instance's
/// fields, which a machine has below its template.
pub(super) fn place(kind: Kind, path: &str) -> String {
    let path: String = path.split(['[', ']']).step_by(2).collect();
    let path = path.replace("livenessProbe", "readinessProbe");
    match (kind, path.strip_prefix("spec")) {
        _ if path.starts_with("metadata") => path,
        (Kind::VirtualMachineInstance, Some(below)) => {
            format!("{} spec.template.spec{below}", Kind::VirtualMachine)
        }
        _ => format!("{kind} {path}"),
    }
}

fn name(place: &str) -> &str {
    place.rsplit(['.', ' ']).next().unwrap_or_default()
}

// spec: API-4
#[test]
fn the_page_shows_every_field_that_is_read_and_names_every_other() {
    let (shown, said) = shown_and_said();
    let (mut kinds, mut given, mut account) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
    for (_, value) in shown.into_iter().flat_map(text::documents) {
        let (value, findings) = (value.unwrap(), Findings::default());
        let (_, object) = read_object(&Node::root(&value, &findings), None, 1).unwrap();
        let kind = object.body.kind();
        for (path, becomes) in findings.account() {
            let kept = account.entry(place(kind, &path)).or_insert(becomes);
            *kept = becomes.max(*kept);
        }
        let mut found = BTreeSet::new();
        paths(&value, "", &mut found);
        given.extend(found.iter().map(|path| place(kind, path)));
        kinds.insert(kind);
        assert_eq!(findings.into_parts(), (Vec::new(), Vec::new()));
    }
    assert_eq!(kinds.len(), 6);
    let is_told = |(place, becomes): &(&String, &Account)| {
        **becomes == Account::Read && given.contains(*place) || said.contains(&format!("`{}`", name(place)))
    };
    let untold: Vec<_> = account.iter().filter(|field| !is_told(field)).collect();
    assert!(untold.is_empty(), "neither shown nor named: {untold:?}");
    for (sentence, becomes) in [("Without effect", Account::WithoutEffect), ("Not supported", Account::Lacking)] {
        for field in said.split("\n\n").filter(|part| part.starts_with(sentence)).flat_map(quoted) {
            let is_so = account.iter().any(|(place, kept)| name(place) == field && *kept == becomes);
            assert!(is_so, "{sentence}: {field}");
        }
    }
}
