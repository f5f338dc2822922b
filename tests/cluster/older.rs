//! Objects that another release has left in the cluster's store, which no admission of this one has seen.

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Cluster, Ran, trial};

use crate::vm::{delete_and_assert_gone, wait_vm};
use crate::vmi::{condition, installed, object, wait_instance};

pub(crate) fn trials() -> Vec<Trial> {
    // spec: CTRL-39
    vec![trial("objects of another release are told what is wrong and hide no other", older)]
}

/// Writes an object where the API server keeps it, in etcd.
fn store(cluster: &Cluster, plural: &str, object: &Value) {
    let name = object["metadata"]["name"].as_str().expect("a name");
    let script = r#"code() { base64 -w0; }
        jq -n --arg key "$(printf %s "$0" | code)" --arg value "$(printf %s "$1" | code)" '{key: $key, value: $value}' |
        curl -sf -m 20 --data-binary @- http://127.0.0.1:2379/v3/kv/put"#;
    let key = format!("/registry/kubevirt.io/{plural}/vms/{name}");
    let mut put = cluster.world().command("bash");
    Ran::of(put.args(["-euo", "pipefail", "-c", script, &key, &object.to_string()])).assert_ok();
}

/// An object of namespace `vms` as KubeVirt or an older release may have left it, with a machine that has no kernel to boot.
fn left(kind: &str, name: &str, uid: u8, spec: &Value, status: &Value) -> Value {
    json!({"apiVersion": "kubevirt.io/v1alpha3", "kind": kind, "spec": spec, "status": status, "metadata": {
        "namespace": "vms", "name": name, "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z",
        "uid": format!("00000000-0000-4000-8000-0000000000{uid:02}")}})
}

fn older() {
    let cluster = installed();
    let mut spec = json!({
        "terminationGracePeriodSeconds": 0,
        "domain": {"memory": {"guest": "1Mi"}, "devices": {"interfaces": [{"name": "default", "masquerade": {}}]}},
        "networks": [{"name": "default", "pod": {}}],
    });
    let fit = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "spec": spec,
        "metadata": {"namespace": "vms", "name": "after-older"}});
    // What no release can read hides nothing: not of its own kind, and not of another.
    let unreadable = json!({"phaseTransitionTimestamps": "x", "conditions": [{"type": 1}], "runtimeUser": "107"});
    store(&cluster, "virtualmachineinstances", &left("VirtualMachineInstance", "unreadable", 1, &spec, &unreadable));
    spec["domain"]["ioThreadz"] = json!(1);
    let machine = json!({"runStrategy": "Always", "template": {"spec": spec}});
    let stopped = json!({"printableStatus": "Stopped", "startFailure": {"consecutiveFailCount": -1}, "memoryDumpRequest": null,
        "volumeSnapshotStatuses": [{"name": "root", "enabled": false}]});
    store(&cluster, "virtualmachines", &left("VirtualMachine", "older", 2, &machine, &stopped));

    let told =
        |vm: &Value| condition(vm, "Failure").is_some_and(|text| text.contains("domain.ioThreadz: unknown field"));
    let vm = wait_vm(&cluster, "older", "to say which field is not known", told);
    assert_eq!(vm["status"]["volumeSnapshotStatuses"][0]["name"], "root", "it is kept: {vm:#}");
    assert!(object(&cluster, "vmi", "older").is_none(), "{vm:#}");
    // What does not concern the field can be changed, and the field.
    cluster.kubectl(&["-n", "vms", "label", "vm", "older", "note=mine"]).assert_ok();
    let mend = json!([{"op": "remove", "path": "/spec/template/spec/domain/ioThreadz"}]).to_string();
    cluster.kubectl(&["-n", "vms", "patch", "vm", "older", "--type=json", "-p", &mend]).assert_ok();
    cluster.apply(&fit.to_string()).assert_ok();
    for name in ["older", "after-older"] {
        wait_instance(&cluster, name, "to run", |vmi| vmi["status"]["phase"] == "Running");
    }
    delete_and_assert_gone(&cluster, "older");
    for name in ["after-older", "unreadable"] {
        cluster.kubectl(&["-n", "vms", "delete", "vmi", name, "--timeout=100s"]).assert_ok();
    }
}
