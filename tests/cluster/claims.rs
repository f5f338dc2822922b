//! PersistentVolumeClaims as disks of VMs: what a guest writes is there after a restart.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Cluster, Ran, trial, wait_for};

use crate::pods::fetch;
use crate::vm::{delete_and_assert_gone, machine, request, uid, wait_next};
use crate::vmi::{condition, installed, object};
use crate::volumes::claim;

const START: Duration = Duration::from_secs(240);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: VOL-2
        trial("a VM waits for a claim that does not exist and then runs", waits),
    ]
}

/// It ends everything on a node.
pub(crate) fn alone() -> Vec<Trial> {
    // spec: VOL-4
    vec![trial("claims keep a VM's disks over restarts of VM, controller and node", keeps)]
}

/// A machine whose disks are on claims. Its page has the first word of each disk, which then gets another.
fn on_claims(name: &str, claims: &[&str]) -> Value {
    let each = "for+disk+in+/dev/vd?;do+head+-c4+$disk>>/www/index.html;echo+kept>$disk;done";
    let mut vm = machine(name, "Manual", &format!("guest.run={each};sync;echo+written>>/www/index.html"));
    let spec = &mut vm["spec"]["template"]["spec"];
    spec["domain"]["devices"]["disks"] =
        claims.iter().map(|claim| json!({"name": claim, "disk": {"bus": "virtio"}})).collect();
    let volume = |claim: &&str| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}});
    spec["volumes"] = claims.iter().map(volume).collect();
    vm
}

/// How many disks of a VM held what an earlier run wrote, seen by a client once it has written to them.
fn kept(cluster: &Cluster, vmi: &Value) -> usize {
    let address = vmi["status"]["interfaces"][0]["ipAddress"].as_str().expect("an address");
    let ask = || Some(fetch(cluster, "vms", "client-node1", address, 80)).filter(|page| page.contains("written"));
    wait_for("the guest to write to its disks", START, ask).0.matches("kept").count()
}

/// Everything on a node ends at once, as when its power is cut: kubelet and runtime are started again, the pods are lost.
fn restart_node(cluster: &Cluster, node: &str) {
    let script = r#"
        pkill -KILL -x 'kubelet|containerd' || true
        for group in /proc/[0-9]*/cgroup; do
            if grep -qs kubepods "$group"; then pid=${group#/proc/}; kill -KILL "${pid%/cgroup}" || true; fi
        done
        pkill -KILL -x containerd-shim || true"#;
    Ran::of(cluster.on_node(node, "bash").args(["-uo", "pipefail", "-c", script])).assert_ok();
}

fn keeps() {
    const NAME: &str = "keeps";
    let cluster = installed();
    for (name, mode) in [("keeps-folder", "Filesystem"), ("keeps-device", "Block")] {
        cluster.apply(&claim(name, mode).to_string()).assert_ok();
    }
    cluster.apply(&on_claims(NAME, &["keeps-folder", "keeps-device"]).to_string()).assert_ok();
    request(&cluster, NAME, &json!([{"action": "Start"}]));
    let first = wait_next(&cluster, NAME, "");
    assert_eq!(kept(&cluster, &first), 0);
    request(&cluster, NAME, &json!([{"action": "Stop", "uid": uid(&first)}, {"action": "Start"}]));
    let second = wait_next(&cluster, NAME, &uid(&first));
    assert_eq!(kept(&cluster, &second), 2);
    // Another controller finds the guest as it runs.
    cluster
        .kubectl(&["-n", "tapvisor", "delete", "pod", "-l", "app=tapvisor-controller", "--timeout=100s"])
        .assert_ok();
    let rollout = ["-n", "tapvisor", "rollout", "status", "deployment/tapvisor-controller", "--timeout=120s"];
    cluster.kubectl(&rollout).assert_ok();
    let strategy = json!({"spec": {"runStrategy": "Always"}}).to_string();
    let patch = ["-n", "vms", "patch", "vm", NAME, "--type=merge", "-p", &strategy];
    wait_for("admission to be back", START, || cluster.kubectl(&patch).is_ok().then_some(()));
    assert_eq!(uid(&object(&cluster, "vmi", NAME).expect("it runs")), uid(&second));
    restart_node(&cluster, second["status"]["nodeName"].as_str().expect("a node"));
    let third = wait_next(&cluster, NAME, &uid(&second));
    assert_eq!(kept(&cluster, &third), 2);
    delete_and_assert_gone(&cluster, NAME);
    cluster.kubectl(&["-n", "vms", "delete", "pvc", "keeps-folder", "keeps-device", "--timeout=120s"]).assert_ok();
}

fn waits() {
    let cluster = installed();
    let mut vm = on_claims("waits", &["waits"]);
    vm["spec"]["runStrategy"] = json!("Always");
    cluster.apply(&vm.to_string()).assert_ok();
    let is_told = || {
        let vm = object(&cluster, "vm", "waits")?;
        let synchronized = condition(&vm, "Synchronized")?;
        (vm["status"]["printableStatus"] == "ErrorPvcNotFound" && synchronized.contains("PVC vms/waits does not exist"))
            .then_some(())
    };
    wait_for("the missing claim to be told", START, is_told);
    cluster.apply(&claim("waits", "Filesystem").to_string()).assert_ok();
    wait_next(&cluster, "waits", "");
    delete_and_assert_gone(&cluster, "waits");
    cluster.kubectl(&["-n", "vms", "delete", "pvc", "waits", "--timeout=120s"]).assert_ok();
}
