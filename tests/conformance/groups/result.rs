//! Groups 7, 8, 9, 13 and 23: the result's shape, whether it is true, and what came in through a chain.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Case;
use crate::conformance::attachment::{Attachment, Farewell, merge};
use crate::conformance::facts::Snapshot;
use crate::conformance::findings::Findings;
use crate::conformance::node::shell;
use crate::conformance::results::{breaches, in_newest_form, list, text};
use crate::conformance::subject::{Build, Place, Role};
use crate::conformance::trouble::Trouble;

/// Group 7.
pub(super) fn schema(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    let attachment = Attachment::prepare(case, 7)?.added()?;
    let result = attachment.result.clone().unwrap_or_default();
    let breaches = breaches(&result, case.version);
    findings
        .expect("the result has only its version's fields, well-formed", breaches.is_empty(), || breaches.join("; "));
    let version = result.get("cniVersion").and_then(Value::as_str);
    findings
        .expect("the result's cniVersion is the request's", version == Some(case.version), || format!("{version:?}"));
    if case.subject.role != Role::Ipam {
        let netns = attachment.pod.path().display().to_string();
        let sandboxes = sandboxes(&result);
        let odd: Vec<_> = sandboxes.iter().filter(|sandbox| **sandbox != netns).collect();
        findings.expect("sandbox is CNI_NETNS word for word", odd.is_empty(), || format!("{odd:?}, CNI_NETNS {netns}"));
    }
    if case.subject.role == Role::Main {
        let spelt = format!("/run/../run/netns/{}", attachment.pod.path().file_name().unwrap_or_default().display());
        let second = Attachment::prepare(case, 70)?;
        let spelt = spelt.replace(&file_name(&attachment), &file_name(&second));
        let answer = second.call("ADD").env("CNI_NETNS", &spelt).run()?;
        let result = serde_json::from_str(&answer.stdout).unwrap_or_default();
        let same = sandboxes(&result).iter().all(|sandbox| *sandbox == spelt);
        findings.expect("sandbox is CNI_NETNS word for word, however it is spelt", same && answer.succeeded(), || {
            answer.shown()
        });
    }
    Ok(())
}

/// Group 8.
pub(super) fn truth(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    let attachment = Attachment::prepare(case, 8)?.added()?;
    let result = attachment.result.clone().unwrap_or_default();
    let top = result.as_object().cloned().unwrap_or_default();
    findings.expect("ADD lists interfaces", list(&top, "interfaces").count() > 0, || result.to_string());
    let (node, pod) = (links(&attachment, Place::Node)?, links(&attachment, Place::Pod)?);
    for interface in list(&top, "interfaces") {
        let name = text(interface, "name").unwrap_or_default();
        let place = if text(interface, "sandbox").is_some_and(|sandbox| !sandbox.is_empty()) { &pod } else { &node };
        let real = place.get(name);
        findings.expect("every listed interface exists", real.is_some(), || name.to_owned());
        let Some(real) = real else { continue };
        let mac = text(interface, "mac").unwrap_or_default();
        let true_mac = mac.is_empty() || text(real, "address") == Some(&mac.to_lowercase());
        findings.expect("every listed mac is the interface's", true_mac, || {
            format!("{name}: {mac}, is {:?}", real.get("address"))
        });
        let mtu = interface.get("mtu").and_then(Value::as_u64);
        let true_mtu = mtu.is_none_or(|mtu| real.get("mtu").and_then(Value::as_u64) == Some(mtu));
        findings.expect("every listed mtu is the interface's", true_mtu, || format!("{name}: {mtu:?}"));
    }
    addresses(&attachment, &top, &pod, findings)
}

fn addresses(
    attachment: &Attachment<'_>,
    top: &Map<String, Value>,
    pod: &Links,
    findings: &mut Findings,
) -> Result<(), Trouble> {
    for ip in list(top, "ips") {
        let address = text(ip, "address").unwrap_or_default();
        let has = |link: &Map<String, Value>| list(link, "addr_info").any(|info| cidr(info) == address);
        findings.expect("every listed address is in the pod", pod.values().any(has), || address.to_owned());
    }
    for route in list(top, "routes") {
        let dst = text(route, "dst").unwrap_or_default();
        let family = if dst.contains(':') { "-6" } else { "-4" };
        let found = attachment.sh(Place::Pod, &format!("ip {family} route show {dst}"))?;
        let through = text(route, "gw").is_none_or(|gw| gw.is_empty() || found.contains(&format!("via {gw}")));
        findings.expect("every listed route is in the pod", !found.trim().is_empty() && through, || {
            format!("{route:?}: {found}")
        });
    }
    Ok(())
}

/// Group 9.
pub(super) fn occupied(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    let Some(name) = case.subject.occupied else { return Ok(()) };
    let mut attachment = Attachment::prepare(case, 9)?;
    attachment.pod.enter(|| shell(&format!("ip link add {name} type veth peer name suite-peer"), &[]))?;
    let before = Snapshot::of(&attachment)?;
    let answer = attachment.add()?;
    findings.expect_none("an existing device of that name is an error", answer.wrong_as_failure());
    let gone = attachment.pod.enter(|| shell(&format!("ip link show {name} && ip link show suite-peer"), &[])).err();
    findings.expect_none("the existing device is untouched", gone.map(|gone| gone.chain()));
    if case.subject.build == Build::Ours {
        findings.expect_none("a refused ADD changes nothing", before.difference(&attachment.pod)?);
    }
    attachment.del_as(Farewell::WithoutResult)?;
    let gone = attachment.pod.enter(|| shell(&format!("ip link show {name}"), &[])).err();
    if case.subject.role != Role::Main {
        findings.expect_none("DEL of the refused ADD leaves the existing device", gone.map(|gone| gone.chain()));
    }
    Ok(())
}

/// Group 13.
pub(super) fn chained(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    let mut attachment = Attachment::prepare(case, 13)?;
    let dns = json!({"dns": {"nameservers": ["192.0.2.53"], "search": ["suite.example"], "domain": "suite.example", "options": ["ndots:5"]}});
    if let Some(previous) = &mut attachment.previous {
        merge(previous, &dns);
    }
    let previous = attachment.previous.clone().unwrap_or_default();
    let answer = attachment.add()?;
    findings.expect("ADD succeeds", answer.succeeded(), || answer.shown());
    let result = attachment.result.clone().unwrap_or_default();
    for key in ["ips", "routes", "dns"] {
        let same = result.get(key) == previous.get(key);
        findings.expect(format!("{key} of the previous result pass through"), same, || {
            format!("{:?} became {:?}", previous.get(key), result.get(key))
        });
    }
    let (was, is) = (names(&previous), names(&result));
    findings.expect("interfaces of the previous result stay, in their order", is.starts_with(&was), || {
        format!("{was:?} became {is:?}")
    });

    malformed(case, findings)?;
    let mut without = Attachment::prepare(case, 130)?;
    without.previous = None;
    let before = Snapshot::of(&without)?;
    let answer = without.add()?;
    if answer.succeeded() {
        let tolerated = case.subject.build == Build::Ours;
        findings.expect("a missing previous result is an error or a trailing attachment", tolerated, || answer.shown());
    } else {
        findings.expect_none("a missing previous result is a clear error", answer.wrong_as_failure());
        findings.expect_none("and changes nothing", before.difference(&without.pod)?);
    }
    Ok(())
}

/// Previous results that are none: judged before anything is made.
fn malformed(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    let mut attachment = Attachment::prepare(case, 131)?;
    let before = Snapshot::of(&attachment)?;
    for (kind, previous) in [
        ("a number", json!(5)),
        ("of a version that is none", json!({"cniVersion": "9.9.9"})),
        ("with a word for its addresses", json!({"cniVersion": case.version, "ips": "x"})),
    ] {
        attachment.previous = Some(previous);
        let answer = attachment.add()?;
        findings.expect_none(format!("a previous result {kind} is an error"), answer.wrong_as_failure());
    }
    findings.expect_none("a malformed previous result changes nothing", before.difference(&attachment.pod)?);
    Ok(())
}

/// Group 23.
pub(super) fn versions_agree(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    let mut results: Vec<(&str, Value)> = Vec::new();
    for version in case.subject.versions {
        let case = Case { version, program: case.program.clone(), ..*case };
        let attachment = Attachment::prepare(&case, 23)?.added()?;
        let mut result = in_newest_form(&attachment.result.clone().unwrap_or_default());
        anonymous(&mut result);
        attachment.del()?;
        let mut before = attachment.clone();
        before.run_before("DEL", &case.subject.before)?;
        results.push((version, result));
    }
    let Some((_, newest)) = results.last() else { return Ok(()) };
    for (version, result) in &results {
        findings.expect("the result says the same in every version", result == newest, || {
            format!("{version}: {result}, newest {newest}")
        });
    }
    Ok(())
}

/// Takes out what no two attachments share: names and macs of veths, the sandbox, the address that is next in turn.
fn anonymous(result: &mut Value) {
    for interface in result.get_mut("interfaces").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(interface) = interface.as_object_mut() {
            for key in ["mac", "sandbox", "name"] {
                let shape = text(interface, key).map(|text| text.len().min(3));
                interface.insert(key.to_owned(), json!(shape));
            }
        }
    }
    for ip in result.get_mut("ips").and_then(Value::as_array_mut).into_iter().flatten() {
        let prefix = ip
            .get("address")
            .and_then(Value::as_str)
            .and_then(|address| address.split_once('/'))
            .map(|(_, prefix)| prefix.to_owned());
        merge(ip, &json!({"address": prefix}));
    }
}

type Links = BTreeMap<String, Map<String, Value>>;

fn links(attachment: &Attachment<'_>, place: Place) -> Result<Links, Trouble> {
    let said = attachment.sh(place, "ip -j addr show")?;
    let list: Vec<Map<String, Value>> =
        serde_json::from_str(&said).map_err(|source| Trouble::Json { what: "ip".to_owned(), source })?;
    Ok(list.into_iter().map(|link| (text(&link, "ifname").unwrap_or_default().to_owned(), link)).collect())
}

fn cidr(info: &Map<String, Value>) -> String {
    format!(
        "{}/{}",
        text(info, "local").unwrap_or_default(),
        info.get("prefixlen").and_then(Value::as_u64).unwrap_or_default()
    )
}

fn sandboxes(result: &Value) -> Vec<String> {
    let top = result.as_object().cloned().unwrap_or_default();
    list(&top, "interfaces")
        .filter_map(|i| text(i, "sandbox").map(str::to_owned))
        .filter(|text| !text.is_empty())
        .collect()
}

fn names(result: &Value) -> Vec<String> {
    let top = result.as_object().cloned().unwrap_or_default();
    list(&top, "interfaces").filter_map(|i| text(i, "name").map(str::to_owned)).collect()
}

fn file_name(attachment: &Attachment<'_>) -> String {
    attachment.pod.path().file_name().unwrap_or_default().display().to_string()
}
