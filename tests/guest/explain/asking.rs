//! Asking `tapvisor explain`, and faults made by hand that it must name.

use std::time::{Duration, Instant};

use serde_json::Value;
use tests::{Guest, Ran};

use crate::vm::Host;

/// Devices and addresses of a VM that a fault's script is written with.
pub(super) struct Place {
    pod: String,
    host_end: String,
    address: String,
}

impl Place {
    pub(super) fn of(host: &Host, guest: &Guest<'_>) -> Self {
        let peer = guest.pod().run(&["ip", "-j", "link", "show", "eth0"]).json()[0]["link_index"].as_u64().unwrap();
        let links = host.world.run(&["ip", "-j", "link"]).json();
        let end = links.as_array().unwrap().iter().find(|link| link["ifindex"] == peer).unwrap();
        Self {
            pod: guest.pod().name().to_owned(),
            host_end: end["ifname"].as_str().unwrap().to_owned(),
            address: guest.pod_address("-4"),
        }
    }

    /// `POD` runs in the VM's namespace, `END` is the host's end of the cable, `ADDRESS` the pod's IPv4 address.
    pub(super) fn script(&self, text: &str) -> String {
        text.replace("POD ", &format!("ip netns exec {} ", self.pod))
            .replace("END", &self.host_end)
            .replace("ADDRESS", &self.address)
    }
}

pub(super) fn explain(host: &Host, arguments: &[&str]) -> (Ran, Value) {
    let ran = host.world.tapvisor(&[&["explain", "-o", "json"], arguments].concat());
    let document: Value = serde_json::from_str(&ran.stdout()).unwrap_or_else(|_| panic!("{}", ran.account()));
    assert_eq!((&document["apiVersion"], &document["kind"]), (&"tapvisor.io/v1".into(), &"Explanation".into()));
    (ran, document["items"][0].clone())
}

/// The codes of what breaks traffic, each with its hop.
pub(super) fn errors(item: &Value) -> Vec<(String, String)> {
    let findings = item["findings"].as_array().unwrap().iter().filter(|finding| finding["severity"] == "error");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    findings.map(|finding| (text(&finding["code"]), text(&finding["hop"]))).collect()
}

/// Demands that `explain` finds nothing that breaks traffic, before long.
pub(crate) fn assert_healthy(host: &Host, name: &str) {
    let healthy = || {
        let (ran, item) = explain(host, &[name]);
        (errors(&item).is_empty() && ran.code() == Some(0)).then_some(())
    };
    let last = || explain(host, &[name]).0.account();
    let patience = Instant::now() + Duration::from_secs(90);
    while healthy().is_none() {
        assert!(Instant::now() < patience, "something stays wrong: {}", last());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Asks until something that breaks traffic is named so.
pub(super) fn wait_error(host: &Host, arguments: &[&str], (code, hop): (&str, &str)) -> (Ran, Value) {
    let patience = Instant::now() + Duration::from_secs(90);
    loop {
        let (ran, item) = explain(host, arguments);
        if errors(&item).iter().any(|(found, at)| found == code && at == hop) {
            return (ran, item);
        }
        assert!(Instant::now() < patience, "no {code} at {hop}: {}", ran.account());
    }
}

/// One thing done by hand, and what `explain` calls it.
pub(super) struct Fault {
    code: &'static str,
    hop: &'static str,
    make: &'static str,
    mend: &'static str,
}

pub(super) const fn fault(code: &'static str, hop: &'static str, make: &'static str, mend: &'static str) -> Fault {
    Fault { code, hop, make, mend }
}

/// Makes each fault, sees it named with the exit code that goes with it, mends it and sees it gone.
pub(super) fn assert_named(host: &Host, guest: &Guest<'_>, faults: &[Fault]) {
    let place = Place::of(host, guest);
    for fault in faults {
        host.world.sh(&place.script(fault.make)).assert_ok();
        let (ran, _) = wait_error(host, &[guest.name()], (fault.code, &place.script(fault.hop)));
        assert_eq!(ran.code(), Some(1));
        host.world.sh(&place.script(fault.mend)).assert_ok();
        assert_healthy(host, guest.name());
    }
}
