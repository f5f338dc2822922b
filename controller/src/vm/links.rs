//! States of links, the one part of a template that the running instance takes over (`state` of an interface).

use serde_json::{Map, Value};

/// Whether two specs of instances differ in more than the states of links.
pub(super) fn differ_elsewhere(one: &Value, other: &Value) -> bool {
    one != other && without_states(one) != without_states(other)
}

fn without_states(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let interfaces = spec.pointer_mut(INTERFACES).and_then(Value::as_array_mut);
    interfaces.into_iter().flatten().filter_map(Value::as_object_mut).for_each(|interface| {
        interface.remove(STATE);
    });
    spec
}

/// The interfaces of an instance with the states that a template's spec gives them, where they have others.
pub(super) fn taken_over(template: &Value, instance: &Map<String, Value>) -> Option<Value> {
    let wanted = template.pointer(INTERFACES)?.as_array()?;
    let mut interfaces = instance.get("domain")?.pointer("/devices/interfaces")?.clone();
    let mut is_changed = false;
    for interface in interfaces.as_array_mut()? {
        let of_template = wanted.iter().find(|wanted| wanted["name"] == interface["name"]);
        let Some((of_template, fields)) = of_template.zip(interface.as_object_mut()) else { continue };
        let state = of_template.get(STATE).and_then(Value::as_str).unwrap_or(UP);
        if state != fields.get(STATE).and_then(Value::as_str).unwrap_or(UP) {
            fields.insert(STATE.to_owned(), state.into());
            is_changed = true;
        }
    }
    is_changed.then_some(interfaces)
}

const INTERFACES: &str = "/domain/devices/interfaces";
const STATE: &str = "state";
/// The state of a link that none is given for.
const UP: &str = "up";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(states: [Option<&str>; 2]) -> Value {
        let interface = |name: &str, state: Option<&str>| match state {
            Some(state) => json!({"name": name, "bridge": {}, "state": state}),
            None => json!({"name": name, "bridge": {}}),
        };
        let [first, second] = states;
        json!({"domain": {"devices": {"interfaces": [interface("a", first), interface("b", second)]}}})
    }

    // spec: CTRL-53
    #[test]
    fn only_states_that_differ_are_taken_over() {
        let taken = |template: &Value, instance: &Value| taken_over(template, instance.as_object().unwrap());
        let (plain, up, down) = (spec([None, None]), spec([Some("up"), None]), spec([None, Some("down")]));
        assert_eq!(taken(&plain, &up), None);
        assert_eq!(taken(&down, &plain), Some(down["domain"]["devices"]["interfaces"].clone()));
        let back = taken(&plain, &down).unwrap();
        assert_eq!((&back[0], &back[1]["state"]), (&plain["domain"]["devices"]["interfaces"][0], &json!("up")));
        assert_eq!(taken(&down, &down), None);
        let other = json!({"domain": {"devices": {"interfaces": [{"name": "c", "state": "down"}]}}});
        assert_eq!((taken(&other, &plain), taken(&json!({}), &plain), taken(&down, &json!({}))), (None, None, None));
    }

    #[test]
    fn everything_but_states_is_a_difference() {
        assert!(!differ_elsewhere(&spec([None, Some("up")]), &spec([Some("down"), None])));
        let mut other = spec([None, None]);
        other["domain"]["devices"]["interfaces"][0]["model"] = json!("e1000");
        assert!(differ_elsewhere(&other, &spec([None, None])));
        assert!(differ_elsewhere(&json!({}), &spec([None, None])) && !differ_elsewhere(&json!({}), &json!({})));
    }
}
