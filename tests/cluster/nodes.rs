//! The cluster itself: nodes, a killed kubelet, who may do what, the official clients.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Cluster, Ran, trial, wait_for};

use crate::cluster;
use crate::pods::{busybox, wait_running};

const MOMENT: Duration = Duration::from_secs(120);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: K8S-2
        trial("two nodes are ready, each with addresses of both families", nodes_are_ready),
        // spec: K8S-3
        trial("a killed kubelet is started again and the node takes pods", killed_kubelet),
        // spec: K8S-3
        trial("a restricted namespace refuses a privileged pod", restricted),
        // spec: K8S-3
        trial("virtctl and kubectl speak to the cluster in their own versions", clients),
        // spec: K8S-3
        trial("the audit log counts the requests of a user", audit_log),
    ]
}

fn nodes_are_ready() {
    let nodes = cluster().kubectl(&["get", "nodes", "-o", "json"]).json();
    let nodes = nodes["items"].as_array().expect("a list");
    assert_eq!(nodes.len(), 2, "{nodes:?}");
    for (number, node) in (1..).zip(nodes) {
        assert!(is_ready(node), "{node:#}");
        let addresses: Vec<_> = node["status"]["addresses"].as_array().into_iter().flatten().collect();
        for address in [format!("192.0.2.1{number}"), format!("2001:db8::1{number}")] {
            assert!(addresses.contains(&&json!({"type": "InternalIP", "address": address})), "{addresses:?}");
        }
    }
}

fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.filter(|condition| condition["type"] == "Ready").any(|condition| condition["status"] == "True")
}

fn killed_kubelet() {
    let cluster = cluster();
    let pid = || kubelet(&cluster);
    let before = pid().expect("it runs");
    Ran::of(cluster.on_node("node1", "kill").args(["-KILL", &before])).assert_ok();
    let (after, _) = wait_for("another kubelet", MOMENT, || pid().filter(|after| *after != before));
    assert_ne!(before, after);
    cluster.apply(&busybox("default", "after-kubelet", "node1", "sleep 1000").to_string()).assert_ok();
    wait_running(&cluster, "default", "after-kubelet");
}

/// The number of the first node's kubelet, in that node.
fn kubelet(cluster: &Cluster) -> Option<String> {
    let ran = Ran::of(cluster.on_node("node1", "pgrep").args(["-x", "kubelet"]));
    ran.is_ok().then(|| ran.text().trim().to_owned())
}

fn restricted() {
    let cluster = cluster();
    let mut pod = busybox("vms", "plain", "node1", "sleep 1000");
    cluster.apply(&pod.to_string()).assert_ok();
    pod["metadata"]["name"] = "privileged".into();
    pod["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    cluster.apply(&pod.to_string()).assert_fails(1, &["violates PodSecurity", "privileged"]);
}

fn clients() {
    let cluster = cluster();
    let kubectl = cluster.kubectl(&["version", "-o", "json"]).json();
    assert_eq!(kubectl["clientVersion"]["gitVersion"], kubectl["serverVersion"]["gitVersion"], "{kubectl}");
    let virtctl = Ran::of(cluster.command("virtctl").args(["version", "--client"]));
    assert!(virtctl.text().contains("GitVersion:\"v1.7.0\""), "{}", virtctl.account());
}

fn audit_log() {
    let cluster = cluster();
    cluster
        .kubectl(&["create", "configmap", "audited", "--as", "audited-user", "--as-group", "system:masters"])
        .assert_ok();
    let path = cluster.logs().join("audit.log");
    let is_it = |event: &Value| {
        event["verb"] == "create"
            && event["objectRef"]["name"] == "audited"
            && event["impersonatedUser"]["username"] == "audited-user"
    };
    wait_for("the request in the audit log", MOMENT, || {
        let log = std::fs::read_to_string(&path).unwrap_or_default();
        let mut events = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        events.any(|event| is_it(&event)).then_some(())
    });
}
