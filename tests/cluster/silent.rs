//! Nodes that fall silent: a kubelet that does nothing, a node without its network. They disturb everything else on the node, so
//! they run one at a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::cluster::NODES;
use tests::{Cluster, Ran, trial, wait_for};

use crate::pods::fetch;
use crate::virtctl::{available, virtctl};
use crate::vmi::{condition, delete_and_assert_gone, installed, wait_instance, wait_ready};
use crate::vmi_trouble::{apply, holder, instance, on_launcher};

/// The kubelet looks for a Secret that was missing once a minute.
const AGENT: Duration = Duration::from_secs(180);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: CTRL-18
        trial("a guest that powers off is seen through its agent, not the kubelet", seen_by_agent),
        // spec: CTRL-12
        trial("a VM on a node that is cut off gets no second launcher", cut_off),
        // spec: CTRL-33
        trial("virtctl is answered while the leading replica is deleted", replica_deleted),
    ]
}

/// A kubelet that does nothing until this is dropped.
struct StoppedKubelet<'a>(&'a Cluster, &'a str);

impl<'a> StoppedKubelet<'a> {
    fn new(cluster: &'a Cluster, node: &'a str) -> Self {
        Ran::of(cluster.on_node(node, "pkill").args(["-STOP", "-x", "kubelet"])).assert_ok();
        Self(cluster, node)
    }
}

impl Drop for StoppedKubelet<'_> {
    fn drop(&mut self) {
        Ran::of(self.0.on_node(self.1, "pkill").args(["-CONT", "-x", "kubelet"])).assert_ok();
    }
}

fn seen_by_agent() {
    let cluster = installed();
    apply(&cluster, &instance("silent", ""));
    let running = wait_ready(&cluster, "silent");
    let node = running["status"]["nodeName"].as_str().expect("it has a node");
    // Only a guest that has started listens to its power button.
    let address = running["status"]["interfaces"][0]["ipAddress"].as_str().expect("an address");
    fetch(&cluster, "vms", "client-node1", address, 80);
    // An agent answers once the kubelet has mounted its certificate, which the controller made after the agent's start.
    wait_for("the agents' streams", AGENT, || follows_agents(&cluster).then_some(()));
    let stopped = StoppedKubelet::new(&cluster, node);
    let press =
        "ctr --namespace k8s.io tasks exec --exec-id press --user 107 \"$id\" /usr/bin/tapvisor-launcher ctl powerdown";
    on_launcher(&cluster, &running, press).assert_ok();
    let ended = wait_instance(&cluster, "silent", "to succeed", |vmi| vmi["status"]["phase"] == "Succeeded");
    let label = format!("kubevirt.io/created-by={}", running["metadata"]["uid"].as_str().expect("a UID"));
    let phase = cluster.kubectl(&["-n", "vms", "get", "pod", "-l", &label, "-o", "jsonpath={.items[0].status.phase}"]);
    assert_eq!(phase.text(), "Running", "the kubelet knows nothing yet");
    drop(stopped);
    delete_and_assert_gone(&cluster, &ended);
}

/// Calls of the subresource API while the pod of the leader ends and another takes its place.
fn replica_deleted() {
    let cluster = available();
    let first = holder(&cluster);
    let is_over = AtomicBool::new(false);
    let calls = std::thread::scope(|scope| {
        let caller = scope.spawn(|| {
            let mut calls = Vec::new();
            // Some of them after the pod is gone, however long one takes.
            while !is_over.load(Ordering::Relaxed) || calls.len() < 4 {
                calls.push(virtctl(&cluster, &["version"]));
            }
            calls
        });
        let deleted = cluster.kubectl(&["-n", "tapvisor", "delete", "pod", &first, "--timeout=60s"]);
        let rollout = ["-n", "tapvisor", "rollout", "status", "deployment/tapvisor-controller", "--timeout=120s"];
        let replaced = cluster.kubectl(&rollout);
        // Also where one failed: the caller is waited for.
        is_over.store(true, Ordering::Relaxed);
        deleted.assert_ok();
        replaced.assert_ok();
        caller.join().expect("no call panics")
    });
    let failed: Vec<_> =
        calls.iter().filter(|call| !call.is_ok() || !call.stdout().contains("Server Version")).collect();
    assert!(failed.is_empty(), "{} of {} calls failed: {}", failed.len(), calls.len(), failed[0].account());
    assert_ne!(holder(&cluster), first);
}

/// Whether the leading controller follows the agents of all nodes.
fn follows_agents(cluster: &Cluster) -> bool {
    let metrics = format!("/api/v1/namespaces/tapvisor/pods/{}:8080/proxy/metrics", holder(cluster));
    let text = cluster.kubectl(&["get", "--raw", &metrics]).stdout();
    let value = text.lines().find_map(|line| line.strip_prefix("tapvisor_controller_node_agents "));
    value.and_then(|value| value.parse::<f64>().ok()) == Some(NODES.len() as f64)
}

/// A node whose cable is out until this is dropped.
struct Unplugged<'a>(&'a Cluster, String);

impl<'a> Unplugged<'a> {
    fn new(cluster: &'a Cluster, node: &str) -> Self {
        let unplugged = Self(cluster, format!("{node}-fabric"));
        cluster.world().run(&["ip", "link", "set", &unplugged.1, "down"]).assert_ok();
        unplugged
    }
}

impl Drop for Unplugged<'_> {
    fn drop(&mut self) {
        self.0.world().run(&["ip", "link", "set", &self.1, "up"]).assert_ok();
    }
}

/// The launcher pods of an instance: name and phase, and whether they are being deleted.
fn launchers(cluster: &Cluster, name: &str) -> Vec<Value> {
    let label = format!("vmi.kubevirt.io/id={name}");
    let pods = cluster.kubectl(&["-n", "vms", "get", "pods", "-l", &label, "-o", "json"]).json();
    pods["items"].as_array().expect("a list").clone()
}

/// What an eviction does after five minutes is done at once: the pod is deleted, and nothing can say that it has ended.
fn cut_off() {
    let cluster = installed();
    // Not on the node of the leading controller, which would have to be replaced first.
    let leader = holder(&cluster);
    let leader = cluster.kubectl(&["-n", "tapvisor", "get", "pod", &leader, "-o", "jsonpath={.spec.nodeName}"]).text();
    let node = NODES.into_iter().find(|node| *node != leader).expect("there are two");
    let mut lonely = instance("lonely", "");
    lonely["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
    apply(&cluster, &lonely);
    let running = wait_ready(&cluster, "lonely");
    let unplugged = Unplugged::new(&cluster, node);
    let label = "vmi.kubevirt.io/id=lonely";
    cluster.kubectl(&["-n", "vms", "delete", "pod", "-l", label, "--wait=false", "--grace-period=1"]).assert_ok();
    // Its user gives up and wants another of that name. The first still writes.
    cluster.kubectl(&["-n", "vms", "delete", "vmi", "lonely", "--wait=false"]).assert_ok();
    let told = |vmi: &Value| {
        condition(vmi, "Synchronized").is_some_and(|text| text.contains(node) && text.contains("TerminationOverdue"))
    };
    wait_instance(&cluster, "lonely", "to say that its node does not answer", told);
    let field = "involvedObject.name=lonely,reason=TerminationOverdue";
    let event = || cluster.kubectl(&["-n", "vms", "get", "events", "--field-selector", field, "-o", "name"]).text();
    wait_for("an event that says so", AGENT, || (!event().is_empty()).then_some(()));
    let pods = launchers(&cluster, "lonely");
    assert!(pods.len() == 1 && pods[0]["metadata"]["deletionTimestamp"].is_string(), "{pods:#?}");
    let vmi = cluster.kubectl(&["-n", "vms", "get", "vmi", "lonely", "-o", "json"]).json();
    assert_eq!(
        (&vmi["metadata"]["uid"], &vmi["status"]["phase"]),
        (&running["metadata"]["uid"], &"Running".into()),
        "{vmi:#}"
    );
    drop(unplugged);
    delete_and_assert_gone(&cluster, &running);
}
