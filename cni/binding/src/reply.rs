//! What the runtime is told: the result of the plugins before us, but for an Ethernet address that we set.

use serde_json::Value;
use terms::{IfName, MacAddr};

use cni_protocol::plugin::Added;

/// In a chain, the previous result goes on. A trailing attachment answers an empty result: the taps are not the pod's interfaces.
pub(crate) fn result(previous: Option<&str>, sandbox: &str, macs: &[(IfName, MacAddr)]) -> Added {
    let document = previous.filter(|_| !macs.is_empty()).and_then(|text| serde_json::from_str(text).ok());
    let Some(mut document): Option<Value> = document else { return Added::Unchanged };
    let interfaces = document.get_mut("interfaces").and_then(Value::as_array_mut);
    for interface in interfaces.into_iter().flatten() {
        let is = |key: &str, value: &str| interface.get(key).and_then(Value::as_str) == Some(value);
        let set = macs.iter().find(|(name, _)| is("name", name.as_str()) && is("sandbox", sandbox));
        if let (Some((_, mac)), Some(interface)) = (set, interface.as_object_mut()) {
            interface.insert("mac".to_owned(), mac.to_string().into());
        }
    }
    Added::Previous(document)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_address_that_was_set_changes() {
        let previous = json!({"interfaces": [
            {"name": "eth0", "mac": "02:00:00:00:00:01"},
            {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/a"},
            {"name": "net1", "mac": "02:00:00:00:00:03", "sandbox": "/run/netns/a"}], "other": 1});
        let mac = ("eth0".parse().unwrap(), MacAddr::local([0, 0, 0, 0, 9]));
        let Added::Previous(document) = result(Some(&previous.to_string()), "/run/netns/a", &[mac]) else {
            panic!("previous")
        };
        let mut expected = previous;
        expected["interfaces"][1]["mac"] = "02:00:00:00:00:09".into();
        assert_eq!(document, expected);
    }

    #[test]
    fn a_trailing_attachment_reports_nothing() {
        let mac = ("eth0".parse().unwrap(), MacAddr::local([0, 0, 0, 0, 9]));
        assert_eq!(result(None, "/run/netns/a", &[mac]), Added::Unchanged);
    }
}
