//! Values at a path of names in JSON.

use serde_json::{Map, Value};

/// The value at a path; null counts as absent.
pub(super) fn get<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| value.get(name)).filter(|value| !value.is_null())
}

/// Sets the value at a path; objects on the way are made.
pub(super) fn set(value: &mut Value, path: &[&str], to: Value) {
    let Some((name, rest)) = path.split_first() else {
        *value = to;
        return;
    };
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    set(&mut value[*name], rest, to);
}
