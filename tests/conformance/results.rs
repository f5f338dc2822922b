//! The shape of a result in each version of the specification, and whether the kernel agrees with it.

use std::net::IpAddr;

use serde_json::{Map, Value};

/// Whether a version is at least another; both are ours and well-formed.
pub(crate) fn at_least(version: &str, other: &str) -> bool {
    let numbers = |text: &str| text.split('.').map(|part| part.parse::<u32>().unwrap_or(0)).collect::<Vec<_>>();
    numbers(version) >= numbers(other)
}

/// What in a result breaks its version's schema, one text per place.
pub(crate) fn breaches(result: &Value, version: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    let Some(top) = result.as_object() else { return vec!["the result is not an object".to_owned()] };
    let mut say = |text: String| breaches.push(text);
    only(top, "result", &["cniVersion", "interfaces", "ips", "routes", "dns"], &mut say);
    let count = list(top, "interfaces").count();
    for interface in list(top, "interfaces") {
        interface_breaches(interface, version, &mut say);
    }
    for ip in list(top, "ips") {
        ip_breaches(ip, version, count, &mut say);
    }
    for route in list(top, "routes") {
        route_breaches(route, version, &mut say);
    }
    if let Some(dns) = top.get("dns").and_then(Value::as_object) {
        only(dns, "dns", &["nameservers", "domain", "search", "options"], &mut say);
    }
    for key in ["interfaces", "ips", "routes"] {
        if top.get(key).is_some_and(|value| !value.is_array()) {
            say(format!("{key} is not a list"));
        }
    }
    breaches
}

fn interface_breaches(interface: &Map<String, Value>, version: &str, say: &mut impl FnMut(String)) {
    let mut known = vec!["name", "mac", "sandbox"];
    if at_least(version, "1.1.0") {
        known.extend(["mtu", "socketPath", "pciID"]);
    }
    only(interface, "interfaces", &known, say);
    let name = text(interface, "name").unwrap_or_default();
    if name.is_empty() || name.len() > 15 {
        say(format!("interfaces: name {name:?}"));
    }
    let mac_is_good =
        |mac: &str| mac.split(':').count() == 6 && mac.split(':').all(|byte| u8::from_str_radix(byte, 16).is_ok());
    if text(interface, "mac").is_some_and(|mac| !mac.is_empty() && !mac_is_good(mac)) {
        say("interfaces: mac is no Ethernet address".to_owned());
    }
}

fn ip_breaches(ip: &Map<String, Value>, version: &str, interfaces: usize, say: &mut impl FnMut(String)) {
    let is_old = !at_least(version, "1.0.0");
    let known = ["address", "gateway", "interface", "version"];
    only(ip, "ips", if is_old { &known } else { &known[..3] }, say);
    let address = text(ip, "address").and_then(network);
    let Some(address) = address else { return say("ips: address is not in CIDR notation".to_owned()) };
    if is_old && text(ip, "version") != Some(if address.is_ipv4() { "4" } else { "6" }) {
        say("ips: version does not tell the family".to_owned());
    }
    if text(ip, "gateway").is_some_and(|gateway| gateway.parse::<IpAddr>().is_err()) {
        say("ips: gateway is not an address".to_owned());
    }
    let in_range = |index: &Value| index.as_u64().is_some_and(|index| index < interfaces as u64);
    if ip.get("interface").is_some_and(|index| !in_range(index)) {
        say("ips: interface is not an index into interfaces".to_owned());
    }
}

fn route_breaches(route: &Map<String, Value>, version: &str, say: &mut impl FnMut(String)) {
    let mut known = vec!["dst", "gw"];
    if at_least(version, "1.1.0") {
        known.extend(["mtu", "advmss", "priority", "table", "scope"]);
    }
    only(route, "routes", &known, say);
    if text(route, "dst").and_then(network).is_none() {
        say("routes: dst is not in CIDR notation".to_owned());
    }
}

/// The objects in a list of a result.
pub(crate) fn list<'a>(result: &'a Map<String, Value>, key: &str) -> impl Iterator<Item = &'a Map<String, Value>> {
    result.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object)
}

/// A text in an object.
pub(crate) fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

/// The same result as it would read in the newest version, so that versions compare.
pub(crate) fn in_newest_form(result: &Value) -> Value {
    let mut result = result.clone();
    if let Some(top) = result.as_object_mut() {
        top.remove("cniVersion");
        // Absent, null and empty mean the same.
        top.retain(|_, value| !matches!(value, Value::Null) && value.as_array().is_none_or(|list| !list.is_empty()));
        top.retain(|_, value| value.as_object().is_none_or(|object| !object.is_empty()));
        for (key, gone) in [("interfaces", ["mtu", "socketPath", "pciID"]), ("ips", ["version", "", ""])] {
            for item in top.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
                let _others = item.as_object_mut().map(|item| item.retain(|key, _| !gone.contains(&key.as_str())));
            }
        }
    }
    result
}

fn network(text: &str) -> Option<IpAddr> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    prefix.parse::<u8>().ok().filter(|prefix| *prefix <= longest).map(|_| address)
}

fn only(object: &Map<String, Value>, place: &str, known: &[&str], say: &mut impl FnMut(String)) {
    for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
        say(format!("{place}: {key} is not a field of this version"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_result_of_each_generation_passes() {
        let old = json!({"cniVersion": "0.4.0", "interfaces": [{"name": "eth0", "sandbox": "/x"}],
            "ips": [{"version": "4", "address": "10.1.0.2/24", "interface": 0}], "dns": {}});
        assert!(breaches(&old, "0.4.0").is_empty());
        let new = json!({"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "mtu": 1500}],
            "ips": [{"address": "fd00::2/64", "gateway": "fd00::1"}], "routes": [{"dst": "::/0", "table": 0}]});
        assert!(breaches(&new, "1.1.0").is_empty());
    }

    #[test]
    fn fields_of_other_versions_are_breaches() {
        let mixed =
            json!({"interfaces": [{"name": "eth0", "mtu": 1500}], "ips": [{"version": "4", "address": "10.1.0.2/24"}]});
        assert_eq!(breaches(&mixed, "1.0.0").len(), 2);
        assert_eq!(breaches(&mixed, "0.3.1"), ["interfaces: mtu is not a field of this version"]);
    }

    #[test]
    fn an_index_out_of_range_is_a_breach() {
        let result = json!({"interfaces": [{"name": "eth0"}], "ips": [{"address": "10.1.0.2/24", "interface": 1}]});
        assert_eq!(breaches(&result, "1.0.0"), ["ips: interface is not an index into interfaces"]);
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(at_least("1.1.0", "1.0.0") && at_least("0.10.0", "0.4.0") && !at_least("0.4.0", "1.0.0"));
    }
}
