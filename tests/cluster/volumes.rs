//! Persistent volumes of the class `local`, as folder and as block device.

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::trial;

use crate::cluster;
use crate::pods::{busybox, in_pod, wait_running};

pub(crate) fn trials() -> Vec<Trial> {
    // spec: K8S-2
    vec![trial("claims for a folder and a block device are bound and hold data", claims)]
}

pub(crate) fn claim(name: &str, mode: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": "vms", "name": name},
        "spec": {"storageClassName": "local", "volumeMode": mode, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "200Mi"}}},
    })
}

fn claims() {
    let cluster = cluster();
    let mut pod = busybox("vms", "storage", "node2", "exec sleep 100000");
    // Scheduled, not placed: only then is a claim bound.
    let spec = &mut pod["spec"];
    spec.as_object_mut().expect("an object").remove("nodeName");
    spec["nodeSelector"] = json!({"kubernetes.io/hostname": "node2"});
    spec["volumes"] = json!([
        {"name": "folder", "persistentVolumeClaim": {"claimName": "folder"}},
        {"name": "device", "persistentVolumeClaim": {"claimName": "device"}},
    ]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "folder", "mountPath": "/folder"}]);
    spec["containers"][0]["volumeDevices"] = json!([{"name": "device", "devicePath": "/dev/disk"}]);
    for object in [claim("folder", "Filesystem"), claim("device", "Block"), pod] {
        cluster.apply(&object.to_string()).assert_ok();
    }
    wait_running(&cluster, "vms", "storage");
    let line = "echo kept >/folder/file; cat /folder/file; echo kept | dd of=/dev/disk bs=512 conv=sync 2>/dev/null; head -c 5 /dev/disk";
    assert_eq!(in_pod(&cluster, "vms", "storage", line).text(), "kept\nkept\n");
    // Other trials have claims of their own.
    let claims = cluster.kubectl(&["-n", "vms", "get", "pvc", "folder", "device", "-o", "json"]).json();
    for claim in claims["items"].as_array().expect("a list") {
        let volume = claim["spec"]["volumeName"].as_str().expect("it is bound");
        assert!(volume.starts_with("node2-"), "{claim:#}");
    }
}
