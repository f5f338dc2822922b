//! A network as `ip`, `nft`, `iptables-save` and `/proc/sys/net` tell it, to compare before with after.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use crate::Ran;

/// Fields of `ip -j` and `nft -j` that change while nothing happens.
const RESTLESS: [&str; 13] = [
    "valid_life_time",
    "preferred_life_time",
    "expires",
    "ifindex",
    "link_index",
    "handle",
    "metainfo",
    "packets",
    "bytes",
    "link_netnsid",
    "linkmode",
    "operstate",
    // Duplicate address detection ends when it likes.
    "tentative",
];

/// Sysctls that count instead of configure.
const COUNTING: &str = "nf_conntrack_count|/nf_flowtable|tcp_fastopen_key|stable_secret";

/// What was seen, by the command that showed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    sections: BTreeMap<&'static str, Vec<String>>,
}

impl Snapshot {
    pub(crate) fn take(run: impl Fn(&[&str]) -> Ran) -> Self {
        let lists = |line: &[&str]| {
            let mut lines: Vec<_> = entries(run(line).json()).iter().map(calm).collect();
            lines.sort();
            lines
        };
        let texts = |script: &str| {
            let text = run(&["bash", "-euo", "pipefail", "-c", script]).text();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let sysctl = format!("grep -sr '' /proc/sys/net | grep -vE '{COUNTING}' | sort || true");
        let xtables =
            "for save in iptables-save ip6tables-save; do $save | sed -E '/^#/d; s/ \\[[0-9]+:[0-9]+\\]$//'; done";
        let sections = BTreeMap::from([
            ("ip link", lists(&["ip", "-j", "-d", "link", "show"])),
            ("ip addr", lists(&["ip", "-j", "addr", "show"])),
            ("ip route", lists(&["ip", "-j", "-4", "route", "show", "table", "all"])),
            ("ip -6 route", lists(&["ip", "-j", "-6", "route", "show", "table", "all"])),
            ("ip rule", lists(&["ip", "-j", "-4", "rule", "show"])),
            ("ip -6 rule", lists(&["ip", "-j", "-6", "rule", "show"])),
            ("nft", lists(&["nft", "-j", "list", "ruleset"])),
            ("iptables-save", texts(xtables)),
            ("sysctl net", texts(&sysctl)),
        ]);
        Self { sections }
    }

    /// What came (`+`) and went (`-`) from here to `after`, one line each; empty when nothing did.
    #[must_use]
    pub fn changes(&self, after: &Self) -> String {
        let mut changes = String::new();
        for (section, before) in &self.sections {
            let now = &after.sections[section];
            let gone = before.iter().filter(|line| !now.contains(line)).map(|line| ('-', line));
            let came = now.iter().filter(|line| !before.contains(line)).map(|line| ('+', line));
            for (sign, line) in gone.chain(came) {
                let _ = writeln!(changes, "{sign} {section}: {line}");
            }
        }
        changes
    }

    /// Demands that nothing changed from here to `after`.
    ///
    /// # Panics
    /// With the changes, if there are any.
    pub fn assert_same(&self, after: &Self) {
        let changes = self.changes(after);
        assert!(changes.is_empty(), "the network is not as it was:\n{changes}");
    }
}

fn entries(list: Value) -> Vec<Value> {
    match list {
        Value::Array(entries) => entries,
        Value::Object(mut object) => object.remove("nftables").map_or_else(Vec::new, entries),
        _ => Vec::new(),
    }
}

/// One entry on one line, without its restless fields.
fn calm(entry: &Value) -> String {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|name, _| !RESTLESS.contains(&name.as_str()));
                fields.values_mut().for_each(strip);
            }
            Value::Array(values) => values.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut entry = entry.clone();
    strip(&mut entry);
    entry.to_string()
}
