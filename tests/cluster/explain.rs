//! `tapvisor explain --context`: the network of a VM in the cluster, seen from a person's machine.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;
use tests::{Cluster, Ran, dist_file, trial, wait_for, wait_for_or};

use crate::background::Background;
use crate::vmi::{delete_and_assert_gone, installed, wait_instance};
use crate::vmi_trouble::{apply, instance};

const MOMENT: Duration = Duration::from_secs(180);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: EXPL-20, EXPL-21, EXPL-22, EXPL-23
        trial("explain shows a VM's network from outside the cluster, and its faults", explained),
    ]
}

fn explain(cluster: &Cluster, words: &[&str]) -> Ran {
    let program = dist_file("tapvisor").display().to_string();
    Ran::of(cluster.command(&program).arg("explain").args(words))
}

/// Waits until a program has written a text.
fn shows(watch: &Background, text: &str) {
    wait_for_or(
        &format!("{text:?} of --watch"),
        MOMENT,
        || watch.wrote().contains(text).then_some(()),
        || watch.wrote(),
    );
}

/// The context of the cluster's kubeconfig file.
fn context(cluster: &Cluster) -> String {
    cluster.kubectl(&["config", "current-context"]).stdout().trim().to_owned()
}

fn codes(explanation: &Value) -> Vec<&str> {
    let findings = explanation["items"][0]["findings"].as_array().expect("findings");
    findings.iter().filter_map(|finding| finding["code"].as_str()).collect()
}

fn explained() {
    let cluster = installed();
    let context = context(&cluster);
    let json = |name: &str| {
        let ran = explain(&cluster, &["--context", &context, "-n", "vms", "-o", "json", name]);
        let account = ran.account();
        (serde_json::from_str::<Value>(&ran.stdout()).unwrap_or_else(|error| panic!("{error}: {account}")), ran.is_ok())
    };
    let absent = explain(&cluster, &["--context", &context, "-n", "vms", "none"]);
    assert!(absent.stderr().contains("not found") && absent.code() == Some(4), "{}", absent.account());
    apply(&cluster, &instance("explained", ""));
    let vmi = wait_instance(&cluster, "explained", "runs", |vmi| vmi["status"]["phase"] == "Running");
    // A guest that has booted is one with which nothing is wrong.
    let healthy =
        || Some(json("explained")).filter(|(found, is_ok)| *is_ok && codes(found).is_empty()).map(|(found, _)| found);
    let healthy = wait_for("an explanation without findings", MOMENT, healthy).0;
    let item = &healthy["items"][0];
    let kinds: Vec<_> =
        item["nics"][0]["hops"].as_array().expect("hops").iter().map(|hop| hop["kind"].clone()).collect();
    for kind in ["host", "hostLink", "podInterface", "rules", "tap", "service", "guest"] {
        assert!(kinds.contains(&kind.into()), "{kind}: {item}");
    }
    assert_eq!(item["node"], vmi["status"]["nodeName"]);
    let picture = explain(&cluster, &["--context", &context, "vms/explained"]);
    picture.assert_ok();
    assert!(picture.stdout().contains("vms/explained is Running on node"), "{}", picture.account());
    // A fault that is made by hand in the pod's namespace, and only there.
    let node = vmi["status"]["nodeName"].as_str().expect("a node");
    let namespace = item["netns"].as_str().expect("a namespace");
    let tap = |state: &str| {
        let net = format!("--net=/run/netns/{namespace}");
        Ran::of(cluster.on_node(node, "nsenter").args([&net, "ip", "link", "set", "k6t-eth0", state])).assert_ok();
    };
    let arguments = ["explain", "--watch", "--context", &context, "vms/explained"];
    let mut watch = Background::start(&cluster, "explain-watch.txt", dist_file("tapvisor"), &arguments);
    shows(&watch, "vms/explained is Running on node");
    tap("down");
    shows(&watch, "wrong: tapDown");
    let (broken, is_ok) = json("explained");
    assert!(!is_ok && codes(&broken).contains(&"tapDown"), "{broken}");
    tap("up");
    shows(&watch, "mended: tapDown");
    delete_and_assert_gone(&cluster, &vmi);
    shows(&watch, "vms/explained was removed");
    let ended = wait_for("--watch to end", MOMENT, || watch.end()).0;
    assert_eq!(ended.code(), Some(4));
}
