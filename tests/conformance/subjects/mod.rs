//! All subjects: ours first, then the reference plugins of both releases.

mod layer2;
mod ours;
mod reference;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::subject::{Build, Disturbance, Place, Role, RuntimeOption, Subject};

/// Every subject, in the order of the table.
#[must_use]
pub fn all() -> Vec<Subject> {
    let mut subjects = ours::subjects();
    subjects.extend(layer2::subjects());
    subjects.extend(reference::subjects(Build::Distribution));
    subjects.extend(reference::subjects(Build::V1_9_1));
    subjects
}

/// A subject about which nothing is said yet.
fn plain(name: String, build: Build, role: Role, versions: &'static [&'static str], conf: Value) -> Subject {
    Subject {
        name,
        plugin: "",
        build,
        role,
        versions,
        conf,
        node: "true",
        before: Vec::new(),
        after: Vec::new(),
        shared: None,
        occupied: None,
        breakages: Vec::new(),
        tolerances: Vec::new(),
        uprootings: Vec::new(),
        changed_conf: json!({}),
        unready: Vec::new(),
        runtime_options: Vec::new(),
        exempt: BTreeMap::new(),
    }
}

fn in_pod(what: &'static str, line: &'static str) -> Disturbance {
    Disturbance { what, place: Place::Pod, line }
}

fn on_node(what: &'static str, line: &'static str) -> Disturbance {
    Disturbance { what, place: Place::Node, line }
}

fn option(what: &'static str, conf: Value, args: &'static str, place: Place, shows: &'static str) -> RuntimeOption {
    RuntimeOption { what, conf, args, place, shows }
}

/// A routed pod network of both families for plugins that come after it.
fn ptp() -> Value {
    json!({"type": "ptp", "ipam": {"type": "host-local",
        "ranges": [[{"subnet": "10.66.0.0/16"}], [{"subnet": "fd66::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}})
}

/// A switched pod network with a gateway on the node.
fn bridge() -> Value {
    json!({"type": "bridge", "bridge": "suite1", "isGateway": true, "ipam": {"type": "host-local",
        "ranges": [[{"subnet": "10.67.0.0/16"}], [{"subnet": "fd67::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}})
}
