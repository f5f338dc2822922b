//! Text to documents: YAML and JSON streams, bounded in size and depth, no key twice.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{budget, options};

/// Most bytes of one manifest; Kubernetes' own store takes 1.5 MiB for an object.
pub const MAX_BYTES: usize = 1024 * 1024;
const MAX_DEPTH: usize = 64;
const MAX_DOCUMENTS: usize = 256;

/// Splits a text into its documents, numbered from 1; empty ones do not count.
///
/// An error ends its document only when the rest can still be told apart from it.
pub(crate) fn documents(text: &str) -> Vec<(usize, Result<Value, String>)> {
    if text.len() > MAX_BYTES {
        return vec![(1, Err(format!("{} bytes, at most {MAX_BYTES} are read", text.len())))];
    }
    // JSON is read as JSON: a YAML reader takes neither tabs for indentation nor escaped surrogate pairs.
    let read =
        if text.trim_start().starts_with(['{', '[']) { json(text).unwrap_or_else(|| yaml(text)) } else { yaml(text) };
    let mut documents: Vec<_> =
        (1..).zip(read.into_iter().filter(|document| !matches!(document, Ok(Value::Null)))).collect();
    if documents.len() > MAX_DOCUMENTS {
        documents.truncate(MAX_DOCUMENTS);
        documents.push((MAX_DOCUMENTS + 1, Err(format!("is one too many, at most {MAX_DOCUMENTS} are read"))));
    }
    documents
}

/// `None` when the text is not JSON at all; YAML may start with `{` too.
fn json(text: &str) -> Option<Vec<Result<Value, String>>> {
    let mut documents = Vec::new();
    for document in serde_json::Deserializer::from_str(text).into_iter::<Tree>() {
        match document {
            Ok(Tree(value)) => documents.push(Ok(value)),
            Err(error) if error.is_data() => {
                documents.push(Err(error.to_string()));
                return Some(documents);
            }
            Err(_) => return None,
        }
    }
    Some(documents)
}

fn yaml(text: &str) -> Vec<Result<Value, String>> {
    let options = options! {
        budget: budget! { max_depth: MAX_DEPTH, max_nodes: 100_000, max_anchors: 1_000 },
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
    };
    let mut bytes = text.as_bytes();
    let read = serde_saphyr::read_with_options::<_, Tree>(&mut bytes, options);
    let not_empty = |document: &Result<Value, String>| !matches!(document, Ok(Value::Null));
    let documents = read.map(|document| document.map(|tree| tree.0).map_err(|error| brief(&error)));
    documents.filter(not_empty).take(MAX_DOCUMENTS + 1).collect()
}

/// The reason and the place, without the excerpt of the text: a manifest may hold secrets.
fn brief(error: &serde_saphyr::Error) -> String {
    if let serde_saphyr::Error::DuplicateMappingKey { key, location } = error.without_snippet() {
        let key: String = key.as_deref().unwrap_or_default().chars().take(80).collect();
        return format!("key {key:?} is given twice at line {}, column {}", location.line(), location.column());
    }
    error.without_snippet().to_string().lines().next().unwrap_or_default().to_owned()
}

/// A JSON value whose objects have each key once; `serde_json::Value` itself keeps the last of two.
struct Tree(Value);

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor).map(Tree)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Tree(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((key, Tree(value))) = entries.next_entry::<String, Tree>()? {
            if map.contains_key(&key) {
                let key: String = key.chars().take(80).collect();
                return Err(A::Error::custom(format!("key {key:?} is given twice")));
            }
            map.insert(key, value);
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Result<Value, String> {
        let mut all = documents(text);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0).1
    }

    #[test]
    fn documents_are_numbered_and_empty_ones_do_not_count() {
        let numbers: Vec<_> =
            documents("---\n# nothing\n---\na: 1\n---\n---\nb: 2\n").into_iter().map(|d| d.0).collect();
        assert_eq!(numbers, [1, 2]);
    }

    #[test]
    fn a_duplicate_key_is_refused_and_the_next_document_is_read() {
        let all = documents("a: 1\na: 2\n---\nb: 1\n");
        assert_eq!(all[0].1.as_ref().unwrap_err(), "key \"a\" is given twice at line 2, column 1");
        assert!(all[1].1.is_ok(), "{all:?}");
        assert!(only(r#"{"a":{"b":1,"b":2}}"#).unwrap_err().starts_with("key \"b\" is given twice"));
    }

    #[test]
    fn json_with_tabs_and_surrogate_pairs_is_json() {
        assert_eq!(only("{\n\t\"a\":\t\"\\ud83d\\ude00\"}").unwrap()["a"], "\u{1f600}");
        assert_eq!(only("{a: b}").unwrap()["a"], "b");
    }

    #[test]
    fn a_number_with_a_leading_zero_stays_text() {
        let document = only("a: 007\nb: 7\nc: yes\nd: 1_000\ne: \"7\"").unwrap();
        assert_eq!(document, serde_json::json!({"a": "007", "b": 7, "c": true, "d": "1_000", "e": "7"}));
    }

    #[test]
    fn files_from_other_systems_are_read() {
        assert_eq!(only("\u{feff}a: 1\r\nb: |\r\n  x\r\n").unwrap(), serde_json::json!({"a": 1, "b": "x\n"}));
        assert_eq!(only("\u{feff}{\"a\": 1}").unwrap(), serde_json::json!({"a": 1}));
    }

    #[test]
    fn anchors_and_merge_keys_are_resolved() {
        let document = only("a: &a {x: 1}\nb: *a\nc:\n  <<: *a\n  y: 2\n").unwrap();
        assert_eq!(document, serde_json::json!({"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}));
    }

    // spec: API-6
    #[test]
    fn size_depth_and_aliases_are_bounded() {
        assert!(only(&" ".repeat(MAX_BYTES + 1)).unwrap_err().contains("at most 1048576"));
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let deep = format!("{}1{}", open.repeat(5_000), close.repeat(5_000));
            assert!(only(&deep).is_err());
        }
        let many = documents(&"---\na\n".repeat(100_000));
        assert!(many.len() == 257 && many[256].1.as_ref().is_err_and(|error| error.contains("at most 256")));
        let bomb: String = (0..40).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| {
            format!("{text}a{next}: &a{next} [*a{n}, *a{n}]\n", next = n + 1)
        });
        assert!(only(&bomb).is_err());
    }

    #[test]
    fn a_complaint_about_syntax_does_not_show_the_text() {
        let error = only("password: \"hunter2\n").unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
