//! PersistentVolumeClaims as disks of VMs: what a guest writes is there after a restart.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Cluster, trial, wait_for};

use crate::pods::fetch;
use crate::vm::{delete_and_assert_gone, machine, request, uid, wait_next};
use crate::vmi::{condition, installed, object};
use crate::volumes::claim;

const START: Duration = Duration::from_secs(240);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: VOL-4
        trial("a claim with a file system keeps a VM's disk over a restart", || keeps("Filesystem")),
        // spec: VOL-4
        trial("a claim for a block device keeps a VM's disk over a restart", || keeps("Block")),
        // spec: VOL-2
        trial("a VM waits for a claim that does not exist and then runs", waits),
    ]
}

/// A machine whose disk is on a claim. Its page has the first word of its disk, which then gets another.
fn on_claim(name: &str) -> Value {
    let words = "guest.run=head+-c4+/dev/vda>/www/index.html;echo+kept>/dev/vda;sync;echo+written>>/www/index.html";
    let mut vm = machine(name, "Manual", words);
    let spec = &mut vm["spec"]["template"]["spec"];
    spec["domain"]["devices"]["disks"] = json!([{"name": "data", "disk": {"bus": "virtio"}}]);
    spec["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": name}}]);
    vm
}

/// The page of a VM once it has written to its disk, seen by a client on the first node.
fn page(cluster: &Cluster, vmi: &Value) -> String {
    let address = vmi["status"]["interfaces"][0]["ipAddress"].as_str().expect("an address");
    let ask = || Some(fetch(cluster, "vms", "client-node1", address, 80)).filter(|page| page.contains("written"));
    wait_for("the guest to write to its disk", START, ask).0
}

fn keeps(mode: &str) {
    let cluster = installed();
    let name = format!("keeps-{}", mode.to_lowercase());
    for object in [claim(&name, mode), on_claim(&name)] {
        cluster.apply(&object.to_string()).assert_ok();
    }
    request(&cluster, &name, &json!([{"action": "Start"}]));
    let first = wait_next(&cluster, &name, "");
    let before = page(&cluster, &first);
    assert!(!before.contains("kept"), "{before}");
    request(&cluster, &name, &json!([{"action": "Stop", "uid": uid(&first)}, {"action": "Start"}]));
    let second = wait_next(&cluster, &name, &uid(&first));
    let after = page(&cluster, &second);
    assert!(after.contains("kept"), "{after}");
    delete_and_assert_gone(&cluster, &name);
    cluster.kubectl(&["-n", "vms", "delete", "pvc", &name, "--timeout=120s"]).assert_ok();
}

fn waits() {
    let cluster = installed();
    let mut vm = on_claim("waits");
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
