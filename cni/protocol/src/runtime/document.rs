//! The configuration a single plugin is given on stdin.

use serde_json::{Map, Value, json};

use super::list::PluginConf;
use super::{Attachment, ConfigList};
use crate::plugin::AttachmentKey;

/// What ADD, CHECK and DEL hand to a plugin: its own keys, name and version of the list, the capabilities it declares,
/// the caller's `args.cni`, and the result so far.
pub(super) fn for_attachment(
    list: &ConfigList,
    plugin: &PluginConf,
    attachment: &Attachment,
    previous: Option<&Value>,
) -> Value {
    let mut document = basic(list, plugin);
    let declared = attachment.capability_args.iter().filter(|(name, _)| plugin.has_capability(name));
    let runtime_config: Map<_, _> = declared.map(|(name, value)| (name.clone(), value.clone())).collect();
    if !runtime_config.is_empty() {
        document.insert("runtimeConfig".to_owned(), runtime_config.into());
    }
    if !attachment.cni_args.is_empty() {
        merge_cni_args(&mut document, &attachment.cni_args);
    }
    if let Some(previous) = previous {
        document.insert("prevResult".to_owned(), previous.clone());
    }
    document.into()
}

/// What STATUS hands to a plugin.
pub(super) fn for_status(list: &ConfigList, plugin: &PluginConf) -> Value {
    basic(list, plugin).into()
}

/// What GC hands to a plugin; under both names, because plugins exist that read the one of an old draft.
pub(super) fn for_gc(list: &ConfigList, plugin: &PluginConf, valid: &[AttachmentKey]) -> Value {
    let mut document = basic(list, plugin);
    document.insert("cni.dev/valid-attachments".to_owned(), json!(valid));
    document.insert("cni.dev/attachments".to_owned(), json!(valid));
    document.into()
}

/// `capabilities` is a word to the runtime and must not reach the plugin (specification section 1).
fn basic(list: &ConfigList, plugin: &PluginConf) -> Map<String, Value> {
    let mut document = plugin.document.clone();
    document.remove("capabilities");
    document.insert("name".to_owned(), list.name.as_str().into());
    document.insert("cniVersion".to_owned(), list.version.as_str().into());
    document
}

fn merge_cni_args(document: &mut Map<String, Value>, cni_args: &Map<String, Value>) {
    let args = document.entry("args").or_insert_with(|| json!({}));
    if !args.is_object() {
        *args = json!({});
    }
    if !args["cni"].is_object() {
        args["cni"] = json!({});
    }
    for (key, value) in cni_args {
        args["cni"][key.as_str()] = value.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> ConfigList {
        ConfigList::from_value(json!({"cniVersion": "1.1.0", "name": "net", "plugins": [
            {"type": "a", "capabilities": {"mac": true, "ips": false}, "args": {"cni": {"x": 1}}, "other": [1]}]}))
        .unwrap()
    }

    fn attachment() -> Attachment {
        let mut attachment = Attachment::new("c1".parse().unwrap(), None, "eth0".parse().unwrap());
        attachment.capability_args = serde_json::from_str(r#"{"mac":"m","ips":["i"],"dns":{}}"#).unwrap();
        attachment.cni_args = serde_json::from_str(r#"{"wiring":{}}"#).unwrap();
        attachment
    }

    #[test]
    fn a_plugin_sees_its_own_keys_and_the_capabilities_it_declared() {
        let list = list();
        let document = for_attachment(&list, &list.plugins[0], &attachment(), Some(&json!({"ips": []})));
        assert_eq!(
            document,
            json!({"cniVersion": "1.1.0", "name": "net", "type": "a", "other": [1], "runtimeConfig": {"mac": "m"},
                "args": {"cni": {"x": 1, "wiring": {}}}, "prevResult": {"ips": []}})
        );
    }

    #[test]
    fn gc_lists_under_both_names_even_when_empty() {
        let list = list();
        let document = for_gc(&list, &list.plugins[0], &[]);
        assert_eq!(
            (&document["cni.dev/valid-attachments"], &document["cni.dev/attachments"]),
            (&json!([]), &json!([]))
        );
        let document = for_gc(&list, &list.plugins[0], &[attachment().key()]);
        assert_eq!(document["cni.dev/valid-attachments"], json!([{"containerID": "c1", "ifname": "eth0"}]));
    }
}
