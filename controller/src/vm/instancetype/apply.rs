//! The expansion: an instancetype and a preference put into a template.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use serde_json::{Value, json};

use super::path::{get, set};
use super::{cpu, preference};

/// Fields of a template that an instancetype decides about when it names them: in the instancetype, in the template.
const OPTIONAL: [(&[&str], &[&str]); 14] = [
    (&["cpu", "model"], &["domain", "cpu", "model"]),
    (&["cpu", "maxSockets"], &["domain", "cpu", "maxSockets"]),
    (&["cpu", "dedicatedCPUPlacement"], &["domain", "cpu", "dedicatedCpuPlacement"]),
    (&["cpu", "isolateEmulatorThread"], &["domain", "cpu", "isolateEmulatorThread"]),
    (&["cpu", "numa"], &["domain", "cpu", "numa"]),
    (&["cpu", "realtime"], &["domain", "cpu", "realtime"]),
    (&["memory", "hugepages"], &["domain", "memory", "hugepages"]),
    (&["memory", "maxGuest"], &["domain", "memory", "maxGuest"]),
    (&["ioThreads"], &["domain", "ioThreads"]),
    (&["ioThreadsPolicy"], &["domain", "ioThreadsPolicy"]),
    (&["launchSecurity"], &["domain", "launchSecurity"]),
    (&["gpus"], &["domain", "devices", "gpus"]),
    (&["nodeSelector"], &["nodeSelector"]),
    (&["schedulerName"], &["schedulerName"]),
];

/// Fields of a template that every instancetype decides about.
const ALWAYS: [&[&str]; 8] = [
    &["domain", "resources", "requests", "cpu"],
    &["domain", "resources", "limits", "cpu"],
    &["domain", "cpu", "sockets"],
    &["domain", "cpu", "cores"],
    &["domain", "cpu", "threads"],
    &["domain", "memory", "guest"],
    &["domain", "resources", "requests", "memory"],
    &["domain", "resources", "limits", "memory"],
];

/// Puts the specs of an instancetype and a preference into a template. The template is unchanged on failure.
///
/// # Errors
/// Every field that the template and the instancetype both set, or that cannot be as they say.
pub(super) fn apply(
    template: &mut Value,
    instancetype: Option<&Value>,
    preference: Option<&Value>,
) -> Result<(), Vec<String>> {
    let mut expanded = template.clone();
    if let Some(instancetype) = instancetype {
        size(&mut expanded, instancetype, preference)?;
    }
    if let Some(preference) = preference {
        preference::apply(&mut expanded, preference);
        requirements(&expanded["spec"], &preference["requirements"])?;
    }
    *template = expanded;
    Ok(())
}

fn size(template: &mut Value, instancetype: &Value, preference: Option<&Value>) -> Result<(), Vec<String>> {
    let spec = &template["spec"];
    let given = ALWAYS.iter().copied().filter(|path| has(spec, path));
    let both = OPTIONAL.iter().filter(|(source, path)| has(instancetype, source) && has(spec, path));
    let mut conflicts: Vec<_> = given.chain(both.map(|(_, path)| *path)).map(conflict).collect();
    let annotations = texts(&instancetype["annotations"]);
    let existing = texts(&template["metadata"]["annotations"]);
    let differs = |(key, value): &(&String, &String)| existing.get(*key).is_some_and(|existing| existing != *value);
    conflicts.extend(annotations.iter().filter(differs).map(|(key, _)| conflict(&["annotations", key])));
    if !conflicts.is_empty() {
        return Err(conflicts);
    }
    let vcpus = instancetype["cpu"]["guest"].as_u64().unwrap_or(1);
    let topology = cpu::topology(vcpus, preference).map_err(|complaint| vec![complaint])?;
    for (name, value) in topology.as_object().into_iter().flatten() {
        set(&mut template["spec"], &["domain", "cpu", name], value.clone());
    }
    let memory = &instancetype["memory"];
    set(&mut template["spec"], &["domain", "memory", "guest"], memory["guest"].clone());
    if let Some(percent) = memory["overcommitPercent"].as_u64().filter(|percent| *percent > 0) {
        let guest = u128::from(bytes(&memory["guest"]).unwrap_or_default());
        let requested = guest * u128::from(100 - percent.min(100)) / 100;
        set(&mut template["spec"], &["domain", "resources", "requests", "memory"], json!(requested.to_string()));
    }
    for (source, path) in OPTIONAL {
        if let Some(value) = get(instancetype, source) {
            set(&mut template["spec"], path, value.clone());
        }
    }
    if let Some(devices) = get(instancetype, &["hostDevices"]) {
        set(&mut template["spec"], &["domain", "devices", "hostDevices"], devices.clone());
    }
    for (key, value) in annotations {
        set(template, &["metadata", "annotations", &key], json!(value));
    }
    Ok(())
}

/// The least that a preference demands.
fn requirements(spec: &Value, requirements: &Value) -> Result<(), Vec<String>> {
    let mut complaints = Vec::new();
    if let Some(least) = requirements["cpu"]["guest"].as_u64() {
        let of = |name: &str| spec["domain"]["cpu"][name].as_u64().unwrap_or(1);
        let vcpus = of("sockets") * of("cores") * of("threads");
        if vcpus < least {
            complaints.push(format!("spec.preference: the preference requires {least} vCPUs, the machine has {vcpus}"));
        }
    }
    if let Some(least) = bytes(&requirements["memory"]["guest"]) {
        let memory = bytes(&spec["domain"]["memory"]["guest"]).unwrap_or_default();
        if memory < least {
            complaints.push(format!(
                "spec.preference: the preference requires {least} bytes of memory, the machine has {memory}"
            ));
        }
    }
    if complaints.is_empty() { Ok(()) } else { Err(complaints) }
}

/// KubeVirt's sentence for a field that both set.
fn conflict(path: &[&str]) -> String {
    let start = if path.first() == Some(&"annotations") { "" } else { "spec.template.spec." };
    format!("VM field(s) {start}{} conflicts with selected instance type", path.join("."))
}

fn bytes(quantity: &Value) -> Option<u64> {
    let text = quantity.as_str().map(str::to_owned).or_else(|| quantity.as_u64().map(|number| number.to_string()))?;
    text.parse::<Quantity>().ok()?.rounded_up()
}

fn texts(value: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(value.clone()).unwrap_or_default()
}

/// Whether a value is set. KubeVirt's own zero values of numbers, texts, switches and lists count as absent.
fn has(value: &Value, path: &[&str]) -> bool {
    get(value, path).is_some_and(|value| match value {
        Value::Number(number) => number.as_u64() != Some(0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Bool(is_set) => *is_set,
        _ => true,
    })
}
