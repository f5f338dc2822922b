//! Everything the kernel and the state folders say, read through other people's tools, so that before and after compare.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use super::attachment::Attachment;
use super::node::Pod;
use super::trouble::Trouble;

/// Where plugins and IPAM plugins keep state; both are empty when a case starts.
const STATE: [&str; 2] = ["/run", "/var/lib/cni"];

/// Settings that a plugin may change.
const SETTINGS: [&str; 4] = ["/proc/sys/net/ipv4", "/proc/sys/net/ipv6", "/proc/sys/net/bridge", "/proc/sys/net/core"];

/// Fields that change by themselves.
const RESTLESS: [&str; 12] = [
    "operstate",
    "state",
    "handle",
    "packets",
    "bytes",
    "metainfo",
    "tentative",
    "dadfailed",
    "valid_life_time",
    "preferred_life_time",
    "expires",
    "age",
];

/// Files that an IPAM plugin or an iptables keeps for itself, and that hold nothing of an attachment.
const BOOKKEEPING: [&str; 5] = ["lock", "last_reserved_ip.", "xtables.lock", "netns", "suite"];

/// The state of one network namespace, one line per object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts(BTreeMap<String, String>);

impl Facts {
    /// Reads the calling thread's namespace.
    pub(crate) fn here() -> Result<Self, Trouble> {
        let mut facts = Self::default();
        facts.add_links_and_routes()?;
        facts.add_rules()?;
        for folder in SETTINGS {
            facts.add_settings(Path::new(folder));
        }
        Ok(facts)
    }

    /// Reads a pod's namespace.
    pub(crate) fn of(pod: &Pod) -> Result<Self, Trouble> {
        pod.enter(Self::here)
    }

    /// The node's namespace and the names of state files on it, but nothing about a shared device.
    pub(crate) fn of_node(shared: Option<&str>) -> Result<Self, Trouble> {
        let mut facts = Self::here()?;
        STATE.iter().for_each(|folder| facts.add_files(Path::new(folder)));
        if let Some(shared) = shared {
            facts.0.retain(|key, _| !key.contains(shared));
        }
        Ok(facts)
    }

    /// What differs in `after`, in a few lines; `None` when nothing does.
    pub(crate) fn difference(&self, after: &Self) -> Option<String> {
        let mut text = String::new();
        let mut count = 0_usize;
        // Settings last: a device brings a hundred of them and says more than they do.
        let keys: BTreeSet<_> = self.0.keys().chain(after.0.keys()).map(|key| (key.starts_with('/'), key)).collect();
        for (_, key) in keys {
            let (old, new) = (self.0.get(key), after.0.get(key));
            if old == new {
                continue;
            }
            count += 1;
            if count <= 6 {
                let shown =
                    |value: Option<&String>| value.map_or("absent".to_owned(), |text| text.chars().take(160).collect());
                let _infallible = write!(text, "{key}: {} → {}; ", shown(old), shown(new));
            }
        }
        (count > 0).then(|| format!("{count} differ: {text}"))
    }

    /// As [`Facts::difference`], but what is gone does not count.
    fn additions(&self, after: &Self) -> Option<String> {
        let still = self.0.iter().filter(|(key, _)| after.0.contains_key(*key));
        Self(still.map(|(key, value)| (key.clone(), value.clone())).collect()).difference(after)
    }

    fn add_links_and_routes(&mut self) -> Result<(), Trouble> {
        let said = fed("ip", &["-j", "-d", "-batch", "-"], "addr show\nroute show table all\nrule show\n")?;
        let parts = ["link", "route", "rule"];
        for (part, list) in parts.iter().zip(serde_json::Deserializer::from_str(&said).into_iter::<Value>()) {
            let list = list.map_err(|source| Trouble::Json { what: "ip".to_owned(), source })?;
            for mut item in list.as_array().cloned().unwrap_or_default() {
                calm(&mut item);
                if is_derived(&item) {
                    continue;
                }
                let key = match item.get("ifname").and_then(Value::as_str) {
                    Some(name) => format!("{part} {name}"),
                    None => format!("{part} {item}"),
                };
                self.0.insert(key, if *part == "link" { item.to_string() } else { "present".to_owned() });
            }
        }
        Ok(())
    }

    fn add_rules(&mut self) -> Result<(), Trouble> {
        for (part, program, args) in
            [("nft", "nft", ["-j", "list", "ruleset"]), ("qdisc", "tc", ["-j", "qdisc", "show"])]
        {
            let said = fed(program, &args, "")?;
            let value: Value = serde_json::from_str(said.trim())
                .map_err(|source| Trouble::Json { what: program.to_owned(), source })?;
            let items = value.get("nftables").unwrap_or(&value).as_array().cloned().unwrap_or_default();
            for mut item in items {
                calm(&mut item);
                *self.0.entry(format!("{part} {item}")).or_default() += "+";
            }
        }
        Ok(())
    }

    fn add_settings(&mut self, folder: &Path) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                self.add_settings(&path);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                // Write-only and secret settings cannot be read, and no plugin has business with them.
                self.0.insert(path.display().to_string(), text.trim().to_owned());
            }
        }
    }

    fn add_files(&mut self, folder: &Path) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if BOOKKEEPING.iter().any(|known| name == *known || known.ends_with('.') && name.starts_with(known)) {
                continue;
            }
            let path = entry.path();
            if path.is_dir() {
                self.add_files(&path);
            } else {
                self.0.insert(format!("file {}", path.display()), "present".to_owned());
            }
        }
    }
}

/// Node and pod together: what must be as before when an attachment is gone.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    shared: Option<&'static str>,
    patience: Duration,
    node: Facts,
    pod: Facts,
}

impl Snapshot {
    pub(crate) fn of(attachment: &Attachment<'_>) -> Result<Self, Trouble> {
        Self::with(&attachment.pod, attachment.case.subject.shared, attachment.case.effort.patience)
    }

    fn with(pod: &Pod, shared: Option<&'static str>, patience: Duration) -> Result<Self, Trouble> {
        Ok(Self { shared, patience, node: Facts::of_node(shared)?, pod: Facts::of(pod)? })
    }

    /// What still differs after the kernel had a moment to finish what it does by itself.
    pub(crate) fn difference(&self, pod: &Pod) -> Result<Option<String>, Trouble> {
        settled(self.patience, || {
            let now = Self::with(pod, self.shared, self.patience)?;
            let node = self.node.difference(&now.node).map(|text| format!("on the node {text}"));
            let pod = self.pod.difference(&now.pod).map(|text| format!("in the pod {text}"));
            Ok(node.into_iter().chain(pod).reduce(|all, more| all + &more))
        })
    }

    /// Objects that were not there before, or settings that are different: things lost do not count.
    pub(crate) fn additions(&self, pod: &Pod) -> Result<Option<String>, Trouble> {
        settled(self.patience, || {
            let now = Self::with(pod, self.shared, self.patience)?;
            let all = self.node.additions(&now.node).into_iter().chain(self.pod.additions(&now.pod));
            Ok(all.reduce(|all, more| all + &more))
        })
    }

    /// As [`Snapshot::additions`] for the node alone, whose ends of the pod's interfaces went with the pod.
    pub(crate) fn node_additions(&self) -> Result<Option<String>, Trouble> {
        settled(self.patience, || Ok(self.node.additions(&Facts::of_node(self.shared)?)))
    }
}

/// Asks until nothing is wrong, or for so long.
pub(crate) fn settled(
    patience: Duration,
    wrong: impl Fn() -> Result<Option<String>, Trouble>,
) -> Result<Option<String>, Trouble> {
    let mut pause = Duration::from_millis(5);
    let mut waited = Duration::ZERO;
    while waited < patience {
        if wrong()?.is_none() {
            return Ok(None);
        }
        sleep(pause);
        waited += pause;
        pause = (pause * 2).min(Duration::from_millis(400));
    }
    wrong()
}

/// The local table's entries that the kernel makes of addresses, some of them a good while later.
fn is_derived(route: &Value) -> bool {
    let field = |key| route.get(key).and_then(Value::as_str);
    field("table") == Some("local") && field("protocol") == Some("kernel")
}

fn calm(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !RESTLESS.contains(&key.as_str()) && !key.ends_with("_timer"));
            map.values_mut().for_each(calm);
        }
        Value::Array(list) => {
            list.retain(|item| !matches!(item.as_str(), Some("NO-CARRIER" | "LOWER_UP" | "linkdown")));
            list.iter_mut().for_each(calm);
        }
        _ => {}
    }
}

fn fed(program: &str, args: &[&str], input: &str) -> Result<String, Trouble> {
    let shown = || format!("{program} {}", args.join(" "));
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Trouble::system(format!("start {program}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(Trouble::system(format!("write to {program}")))?;
    }
    let output = child.wait_with_output().map_err(Trouble::system(format!("wait for {program}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Trouble::Program { program: shown(), output: said });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
