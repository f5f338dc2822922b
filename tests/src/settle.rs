//! Waiting for what the kernel does by itself, a moment later: it notes a carrier, then gives and checks addresses.

use std::time::Duration;

use serde_json::Value;

use crate::{Ran, wait_for};

/// A check for duplicates takes two seconds, and the kernel does it when it finds the time.
const LONGEST: Duration = Duration::from_secs(60);

/// Waits until every link that has a carrier is known to have one, and every IPv6 address on it is the link's own, with the
/// local route that comes last.
///
/// # Panics
/// When that does not come about.
pub(crate) fn settle(run: impl Fn(&[&str]) -> Ran) {
    let settled = || {
        let links = run(&["ip", "-j", "addr", "show"]).json();
        let local = run(&["ip", "-6", "route", "show", "table", "local"]).text();
        links.as_array()?.iter().all(|link| is_settled(link, &local)).then_some(())
    };
    wait_for("the kernel to be done with links and addresses", LONGEST, settled);
}

/// Waits until a link passes frames on: before its carrier is noted, it drops what it is to send.
///
/// # Panics
/// When it never does.
pub(crate) fn carrier(link: &str, run: impl Fn(&[&str]) -> Ran) {
    wait_for(&format!("the carrier of {link}"), LONGEST, || {
        let links = run(&["ip", "-j", "link", "show", link]).json();
        (links[0]["operstate"] == "UP").then_some(())
    });
}

fn is_settled(link: &Value, local: &str) -> bool {
    let has_carrier = link["flags"].as_array().is_some_and(|flags| flags.contains(&"LOWER_UP".into()));
    let is_noted = !["DOWN", "LOWERLAYERDOWN"].contains(&link["operstate"].as_str().unwrap_or_default());
    let name = link["ifname"].as_str().unwrap_or_default();
    let is_own = |info: &Value| {
        let route = format!("local {} dev {name} ", info["local"].as_str().unwrap_or_default());
        info["tentative"] != true && local.lines().any(|line| line.starts_with(&route))
    };
    let addresses = link["addr_info"].as_array().into_iter().flatten();
    !has_carrier || is_noted && addresses.filter(|info| info["family"] == "inet6").all(is_own)
}
