//! Disks made of ConfigMaps, Secrets, a service account's token, fields of the pod and cloud-init data, read by a guest.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Cluster, Ran, trial, wait_for};

use crate::pods::fetch_path;
use crate::vmi::{delete_and_assert_gone, installed, wait_ready};
use crate::vmi_trouble::{apply, instance};

const MOMENT: Duration = Duration::from_secs(60);
const DISKS: [&str; 5] = ["settings", "keys", "robot", "pod", "seed"];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: VOL-6, VOL-8
        trial("a guest reads the files of every kind of volume from its disks", files),
    ]
}

/// The longest key of a ConfigMap.
fn long_key() -> String {
    "k".repeat(253)
}

fn objects() -> [Value; 4] {
    let metadata = |name: &str| json!({"namespace": "vms", "name": name});
    [
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("files"), "data": {"colour": "blue", long_key(): "long"}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata("files"), "stringData": {"password": "sesame"}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata("files-seed"), "stringData": {"userdata": "#!/bin/sh"}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata("robot")}),
    ]
}

/// An instance whose guest shows, for each disk, its label, which is in the first descriptor, and every file with its content.
fn machine() -> Value {
    let show = "guest.run=for+d+in+a+b+c+d+e;do+echo+$d+label+$(dd+if=/dev/vd$d+bs=1+skip=32808+count=32);mkdir+/m$d;mount+-r+-t+iso9660+/dev/vd$d+/m$d;cd+/m$d;\
        find+.+-type+f|sort|while+read+f;do+echo+$d+$f+$(cat+$f);done;done>/www/facts";
    let mut vmi = instance("files", show);
    vmi["metadata"]["labels"] = json!({"app": "files"});
    let spec = &mut vmi["spec"];
    spec["domain"]["devices"]["disks"] =
        DISKS.iter().map(|name| json!({"name": name, "disk": {"bus": "virtio"}})).collect();
    spec["volumes"] = json!([
        {"name": "settings", "configMap": {"name": "files", "volumeLabel": "OEMDRV"}},
        {"name": "keys", "secret": {"secretName": "files"}},
        {"name": "robot", "serviceAccount": {"serviceAccountName": "robot"}},
        {"name": "pod", "downwardAPI": {"fields": [{"path": "of/labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "seed", "cloudInitConfigDrive": {"secretRef": {"name": "files-seed"}, "networkData": "{}"}},
    ]);
    vmi
}

/// Whose token it is, by the API server.
fn user_of(cluster: &Cluster, token: &str) -> String {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let mut create = cluster.command("kubectl");
    create.args(["create", "-o", "json", "-f", "-"]);
    let answer = Ran::with_input(&mut create, review.to_string().as_bytes()).json();
    answer["status"]["user"]["username"].as_str().unwrap_or_default().to_owned()
}

fn files() {
    let cluster = installed();
    objects().iter().for_each(|object| apply(&cluster, object));
    apply(&cluster, &machine());
    let vmi = wait_ready(&cluster, "files");
    let address = vmi["status"]["interfaces"][0]["ipAddress"].as_str().expect("an address").to_owned();
    let ask = || {
        let facts = fetch_path(&cluster, "vms", "client-node1", &address, 80, "/facts");
        Some(facts).filter(|facts| facts.contains("user_data"))
    };
    let facts = wait_for("the guest to show its disks", MOMENT, ask).0;
    let of = |start: &str| facts.lines().find_map(|line| line.strip_prefix(start)).unwrap_or_default().trim();
    assert_eq!((of("a ./colour"), of(&format!("a ./{}", long_key())), of("b ./password")), ("blue", "long", "sesame"));
    assert_eq!((of("c ./namespace"), of("e ./openstack/latest/user_data")), ("vms", "#!/bin/sh"), "{facts}");
    assert!(of("c ./ca.crt").starts_with("-----BEGIN CERTIFICATE-----"), "{facts}");
    assert!(of("d ./of/labels").contains("app=\"files\""), "{facts}");
    assert!(of("e ./openstack/latest/meta_data.json").contains("\"instance_id\":\"files.vms\""), "{facts}");
    for (disk, label) in [("a", "OEMDRV"), ("b", "cfgdata"), ("e", "config-2")] {
        assert_eq!(of(&format!("{disk} label")), label, "{facts}");
    }
    assert_eq!(user_of(&cluster, of("c ./token")), "system:serviceaccount:vms:robot");
    delete_and_assert_gone(&cluster, &vmi);
    for object in objects() {
        let (kind, name) =
            (object["kind"].as_str().expect("a kind"), object["metadata"]["name"].as_str().expect("a name"));
        cluster.kubectl(&["-n", "vms", "delete", kind, name]).assert_ok();
    }
}
