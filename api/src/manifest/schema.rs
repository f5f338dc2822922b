//! The schemas of the installation, `deploy/tapvisor.yaml`, held against what the reader looks for: the API server drops no
//! field that is read or refused by its path, takes every value that the reader takes, and describes no other field.

use std::collections::BTreeSet;

use super::page::{place, shown_and_said};
use super::*;

const INSTALLATION: &str = include_str!("../../../deploy/tapvisor.yaml");
/// Keywords that say nothing about which values are taken.
const SILENT: [&str; 5] =
    ["description", "format", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type"];

/// The schemas of a kind, one for each version.
fn schemas(kind: Kind) -> Vec<Value> {
    let objects = text::documents(INSTALLATION).into_iter().map(|(_, object)| object.unwrap());
    let mut of_kind = objects.filter(|object| {
        object["kind"] == "CustomResourceDefinition" && object["spec"]["names"]["kind"] == kind.to_string()
    });
    let definition = of_kind.next();
    let versions = definition.iter().flat_map(|definition| definition["spec"]["versions"].as_array().unwrap());
    versions.map(|version| version["schema"]["openAPIV3Schema"].clone()).collect()
}

/// The schema of a member or an element; `None` where the API server would drop it, `Null` where it keeps it unseen.
fn below<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    let described = schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
    let is_kept = schema.is_null() || schema["x-kubernetes-preserve-unknown-fields"] == true;
    described.or(is_kept.then_some(&Value::Null))
}

/// Whether a path, as the reader writes it, survives.
fn is_kept(schema: &Value, path: &str) -> bool {
    let mut at = schema;
    for part in path.split(['.', '[']).filter(|part| !part.is_empty()) {
        let next = match part.strip_suffix(']') {
            Some(number) if number.parse::<usize>().is_ok() && !at.is_null() => at.get("items"),
            Some(_) if at.is_null() => Some(at),
            Some(key) => below(at, key.trim_matches('"')),
            None => below(at, part),
        };
        let Some(next) = next else { return false };
        at = next;
    }
    true
}

/// What a value breaks.
fn check(schema: &Value, value: &Value, path: &str, broken: &mut Vec<String>) {
    for (keyword, rule) in schema.as_object().into_iter().flatten() {
        let is_kept = match (keyword.as_str(), value) {
            ("type", Value::Null) => schema["nullable"] == true,
            ("type", _) => is_of(rule.as_str().unwrap(), value),
            ("enum", _) => rule.as_array().unwrap().contains(value),
            ("minimum", Value::Number(number)) => number.as_f64() >= rule.as_f64(),
            ("maximum", Value::Number(number)) => number.as_f64() <= rule.as_f64(),
            ("maxItems", Value::Array(items)) => u64::try_from(items.len()).unwrap() <= rule.as_u64().unwrap(),
            ("required", Value::Object(map)) => {
                rule.as_array().unwrap().iter().all(|name| map.contains_key(name.as_str().unwrap()))
            }
            ("x-kubernetes-int-or-string", _) => value.is_string() || value.is_i64(),
            ("items", Value::Array(items)) => {
                items.iter().enumerate().for_each(|(n, item)| check(rule, item, &format!("{path}[{n}]"), broken));
                true
            }
            // What they say of members is checked below, what they say of numbers and lists is for those alone.
            (
                "properties"
                | "additionalProperties"
                | "nullable"
                | "x-kubernetes-preserve-unknown-fields"
                | "items"
                | "required"
                | "minimum"
                | "maximum"
                | "maxItems",
                _,
            ) => true,
            (keyword, _) => SILENT.contains(&keyword),
        };
        if !is_kept {
            broken.push(format!("{path}: {keyword} {rule}, found {value}"));
        }
    }
    for (name, member) in value.as_object().into_iter().flatten() {
        if let Some(schema) = below(schema, name) {
            check(schema, member, &format!("{path}.{name}"), broken);
        }
    }
}

fn is_of(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        _ => false,
    }
}

/// The paths that a schema describes.
fn described(schema: &Value, path: &str, found: &mut Vec<String>) {
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        described(member, &path, found);
        found.push(path);
    }
    if let Some(items) = schema.get("items") {
        described(items, path, found);
    }
}

// spec: ADM-20
#[test]
fn the_schemas_of_a_cluster_agree_with_what_is_read() {
    let mut broken = Vec::new();
    for kind in [Kind::VirtualMachine, Kind::VirtualMachineInstance] {
        let (schemas, of_instances) = (schemas(kind), schemas(Kind::VirtualMachineInstance));
        assert!(!schemas.is_empty(), "{kind} has no schema");
        let (shown, _) = shown_and_said();
        let (mut documents, mut known) = (0, BTreeSet::new());
        for (_, value) in shown.into_iter().flat_map(text::documents) {
            let (value, findings) = (value.unwrap(), Findings::default());
            let (_, object) = read_object(&Node::root(&value, &findings), None, 1).unwrap();
            let account = findings.account();
            known.extend(account.keys().map(|path| place(object.body.kind(), path)));
            if object.body.kind() != kind {
                continue;
            }
            documents += 1;
            if kind == Kind::VirtualMachine {
                // What the page shows of an instance it shows in the template of a machine.
                for schema in &of_instances {
                    check(&schema["properties"]["spec"], &value["spec"]["template"]["spec"], "template", &mut broken);
                }
            }
            let own = account.keys().filter(|path| path.starts_with("spec"));
            for schema in &schemas {
                check(schema, &value, "", &mut broken);
                let dropped = own.clone().filter(|path| !is_kept(schema, path));
                broken.extend(dropped.map(|path| format!("{kind} {path} would be dropped")));
            }
        }
        assert!(documents > 0, "the page shows no {kind}");
        for schema in &schemas {
            let mut paths = Vec::new();
            described(&schema["properties"]["spec"], "spec", &mut paths);
            let unknown = paths.iter().filter(|path| !known.contains(&place(kind, path)));
            broken.extend(unknown.map(|path| format!("{kind} {path} is described and not read")));
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

// spec: ADM-20
#[test]
fn a_schema_that_drops_or_refuses_what_is_read_is_found() {
    let schema = serde_json::json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "a": {"type": "array", "maxItems": 1, "items": {"type": "object", "properties": {"b": {"type": "integer", "minimum": 1}}}},
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}});
    for (path, kept) in [
        ("spec.a[0].b", true),
        ("spec.a[0].c", false),
        ("spec.c", false),
        ("spec.open.x[3].y", true),
        ("spec.open[\"x/y\"].z", true),
    ] {
        assert_eq!(is_kept(&schema, path), kept, "{path}");
    }
    let mut broken = Vec::new();
    check(&schema, &serde_json::json!({"spec": {"a": [{"b": 0}, {"b": "1"}]}}), "", &mut broken);
    assert_eq!(broken.len(), 3, "{broken:?}");
}
