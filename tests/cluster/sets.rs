//! VirtualMachineInstanceReplicaSets, evictions, and kinds of KubeVirt that exist and cannot be created.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Cluster, KERNEL_ARGUMENTS, Ran, trial, wait_for};

use crate::vmi::{delete_and_assert_gone, installed, object, wait_ready};

/// A launcher pod and its guest, on two processors that run a cluster too.
const START: Duration = Duration::from_secs(240);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: VM-12
        trial("a set of VMs replaces what is deleted and follows kubectl scale", scaled),
        // spec: VM-17
        trial("what evicts a VM is refused as its strategy says and marks it", evicted),
        // spec: VM-13
        trial("objects around VMs that are not implemented are listed and refused", not_supported),
    ]
}

fn set(name: &str) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceReplicaSet", "metadata": {"namespace": "vms", "name": name},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": {"metadata": {"labels": {"app": name}}, "spec": {
            "terminationGracePeriodSeconds": 5,
            "domain": {
                "memory": {"guest": "128Mi"},
                "firmware": {"kernelBoot": {"kernelArgs": KERNEL_ARGUMENTS, "container": {
                    "image": "localhost/tapvisor/guest-kernel:1", "kernelPath": "/boot/vmlinuz", "initrdPath": "/boot/initrd.img"}}},
                "devices": {"interfaces": [{"name": "default", "masquerade": {}}]},
            },
            "networks": [{"name": "default", "pod": {}}],
        }}},
    })
}

/// Names of the instances of a set.
fn instances(cluster: &Cluster, set: &str) -> Vec<String> {
    let label = format!("app={set}");
    let ran = cluster.kubectl(&["-n", "vms", "get", "vmi", "-l", &label, "-o", "jsonpath={.items[*].metadata.name}"]);
    ran.text().split_whitespace().map(str::to_owned).collect()
}

/// Waits until the status of a set counts so many instances and so many that are ready.
fn wait_counts(cluster: &Cluster, set: &str, replicas: u64, ready: u64) {
    let counts = || {
        let status = object(cluster, "vmirs", set)?["status"].clone();
        (status["replicas"] == replicas && status["readyReplicas"] == ready).then_some(())
    };
    wait_for(&format!("set {set} to have {replicas} instances, {ready} of them ready"), START, counts);
}

fn scaled() {
    let cluster = installed();
    let mut wrong = set("fleet");
    wrong["spec"]["template"]["spec"]["domain"]["typo"] = json!(1);
    wrong["spec"]["selector"] = json!({"matchLabels": {"app": "other"}});
    let paths = ["spec.template.metadata.labels: ", "spec.template.spec.domain.typo: unknown field"];
    cluster.apply(&wrong.to_string()).assert_fails(1, &paths);
    cluster.apply(&set("fleet").to_string()).assert_ok();
    wait_counts(&cluster, "fleet", 1, 1);
    let first = instances(&cluster, "fleet");
    cluster.kubectl(&["-n", "vms", "delete", "vmi", &first[0], "--timeout=170s"]).assert_ok();
    let replaced = || Some(instances(&cluster, "fleet")).filter(|names| names.len() == 1 && *names != first);
    wait_for("another instance", START, replaced);
    let scale = |replicas: &str| {
        cluster.kubectl(&["-n", "vms", "scale", "vmirs", "fleet", &format!("--replicas={replicas}")]).assert_ok();
    };
    scale("2");
    wait_for("two instances", START, || (instances(&cluster, "fleet").len() == 2).then_some(()));
    scale("0");
    wait_counts(&cluster, "fleet", 0, 0);
    wait_for("no instance", START, || instances(&cluster, "fleet").is_empty().then_some(()));
    scale("1");
    wait_for("an instance", START, || (instances(&cluster, "fleet").len() == 1).then_some(()));
    cluster.kubectl(&["-n", "vms", "delete", "vmirs", "fleet", "--timeout=170s"]).assert_ok();
    wait_for("the instance to be collected", START, || instances(&cluster, "fleet").is_empty().then_some(()));
}

fn not_supported() {
    let cluster = installed();
    let kinds = [
        ("kubevirt.io/v1", "VirtualMachineInstancePreset", "virtualmachineinstancepresets.kubevirt.io"),
        ("pool.kubevirt.io/v1beta1", "VirtualMachinePool", "virtualmachinepools.pool.kubevirt.io"),
        ("snapshot.kubevirt.io/v1beta1", "VirtualMachineSnapshot", "virtualmachinesnapshots.snapshot.kubevirt.io"),
        (
            "snapshot.kubevirt.io/v1beta1",
            "VirtualMachineSnapshotContent",
            "virtualmachinesnapshotcontents.snapshot.kubevirt.io",
        ),
        ("snapshot.kubevirt.io/v1beta1", "VirtualMachineRestore", "virtualmachinerestores.snapshot.kubevirt.io"),
        ("export.kubevirt.io/v1beta1", "VirtualMachineExport", "virtualmachineexports.export.kubevirt.io"),
        ("clone.kubevirt.io/v1beta1", "VirtualMachineClone", "virtualmachineclones.clone.kubevirt.io"),
        ("migrations.kubevirt.io/v1alpha1", "MigrationPolicy", "migrationpolicies.migrations.kubevirt.io"),
    ];
    for (version, kind, resource) in kinds {
        let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "refused"}, "spec": {}});
        if kind != "MigrationPolicy" {
            object["metadata"]["namespace"] = json!("vms");
        }
        cluster.apply(&object.to_string()).assert_fails(1, &[&format!("{kind}: not supported: ")]);
        let list = cluster.kubectl(&["get", resource, "--all-namespaces", "-o", "json"]).json();
        assert_eq!(list["items"], json!([]), "{kind}");
    }
}

/// Asks for the eviction of a pod, as `kubectl drain` does.
fn evict(cluster: &Cluster, pod: &str) -> Ran {
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"namespace": "vms", "name": pod}});
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("eviction.json");
    std::fs::write(&file, eviction.to_string()).expect("a file can be made");
    let path = format!("/api/v1/namespaces/vms/pods/{pod}/eviction");
    cluster.kubectl(&["create", "--raw", &path, "-f", &file.display().to_string()])
}

fn evicted() {
    let cluster = installed();
    let mut vmi = set("drained")["spec"]["template"].take();
    vmi["apiVersion"] = json!("kubevirt.io/v1");
    vmi["kind"] = json!("VirtualMachineInstance");
    vmi["metadata"] = json!({"namespace": "vms", "name": "drained", "labels": {"app": "drained"}});
    vmi["spec"]["evictionStrategy"] = json!("External");
    cluster.apply(&vmi.to_string()).assert_ok();
    let running = wait_ready(&cluster, "drained");
    let label = format!("kubevirt.io/created-by={}", running["metadata"]["uid"].as_str().expect("a UID"));
    let pods = cluster.kubectl(&["-n", "vms", "get", "pods", "-l", &label, "-o", "jsonpath={.items[*].metadata.name}"]);
    let pod = pods.text();
    evict(&cluster, pod.trim()).assert_fails(1, &["Eviction triggered evacuation of VMI \"vms/drained\""]);
    let marked = object(&cluster, "vmi", "drained").expect("it runs");
    assert_eq!(marked["status"]["evacuationNodeName"], running["status"]["nodeName"], "{marked:#}");
    evict(&cluster, pod.trim()).assert_fails(1, &["Evacuation in progress: Eviction triggered evacuation of VMI"]);
    assert!(object(&cluster, "pod", pod.trim()).is_some_and(|pod| pod["metadata"]["deletionTimestamp"].is_null()));
    delete_and_assert_gone(&cluster, &marked);
}
